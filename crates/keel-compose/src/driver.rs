//! `x-driver`: what runs the instances, of all services or of one. Evenkeel's own.

use keel_diag::{Diagnostic, suggest};
use keel_model::{Driver, DriverChoice};

use crate::{Project, Service, decode::Decoder, files::FileReader, yaml::Node};

/// The choice for services that don't say: what the caller said, else the top level.
pub(crate) fn of_project(
    given: Option<DriverChoice>,
    tree: &Node,
    project: &Project,
    reader: &mut FileReader<'_>,
) -> DriverChoice {
    let mut decoder =
        Decoder { report: reader.report, folder: &project.folder, variables: &project.variables };
    let written = read(&mut decoder, tree);
    given.or(written).unwrap_or_default()
}

/// Settles the driver of a service. `given` is what the caller said, which counts more than the file.
pub(crate) fn of_service(
    given: Option<DriverChoice>,
    decoder: &mut Decoder<'_>,
    node: &Node,
    project: &Project,
    service: &mut Service,
) {
    let written = read(decoder, node);
    let choice = given.or(written).unwrap_or(project.driver);
    let own = service.process.as_ref();
    let runs_here = own.is_some_and(|own| own.command.is_some() || own.address.is_some());
    service.driver_choice = choice;
    service.driver = match choice {
        DriverChoice::Docker if service.image.is_some() || service.build.is_some() => Driver::Docker,
        DriverChoice::Auto if service.image.is_some() && service.build.is_none() && !runs_here => {
            Driver::Docker
        }
        _ => Driver::Process,
    };
}

fn read(decoder: &mut Decoder<'_>, node: &Node) -> Option<DriverChoice> {
    let text = node.get("x-driver").and_then(|node| decoder.text(node))?;
    let choice = text.value.parse().ok();
    if choice.is_none() {
        let message = format!("`{}` is not a driver", text.value);
        let diagnostic = Diagnostic::error("compose::driver", message).at(text.span, "");
        decoder.report.push(match suggest(&text.value, DriverChoice::NAMES) {
            Some(near) => diagnostic.help(format!("did you mean `{near}`?")),
            None => diagnostic.help("process, docker or auto"),
        });
    }
    choice
}
