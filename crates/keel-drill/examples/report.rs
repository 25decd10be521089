//! Makes reports again from `results.json`: of one drill, or of several side by side.
//!
//!     cargo run -p keel-drill --example report -- RESULTS.json... FOLDER

use std::{env, error::Error, fs, path::Path};

use keel_drill::{report, results::Results};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let Some((folder, files)) = arguments.split_last().filter(|(_, files)| !files.is_empty()) else {
        return Err("usage: report RESULTS.json... FOLDER".into());
    };
    let mut all: Vec<Results> = Vec::new();
    for file in files {
        all.push(serde_json::from_slice(&fs::read(file)?)?);
    }
    match all.as_slice() {
        [one] => report::write(one, Path::new(folder))?,
        several => report::compare(several, Path::new(folder))?,
    };
    Ok(())
}
