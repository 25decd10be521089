//! Makes the report again from `results.json`: `cargo run -p keel-drill --example report -- results.json FOLDER`.

use std::{env, error::Error, fs, path::Path};

use keel_drill::{report, results::Results};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [files @ .., folder] = arguments.as_slice() else {
        return Err("usage: report RESULTS.json FOLDER".into());
    };
    for file in files {
        let results: Results = serde_json::from_slice(&fs::read(file)?)?;
        report::write(&results, Path::new(folder))?;
    }
    Ok(())
}
