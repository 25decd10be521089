//! From a Compose service to a local process.
//!
//! What a container would run is found out as the engine does — entrypoint, command, the Dockerfile's — and its paths
//! are mapped to this host. What can't be honoured is named before anything starts, with what to write instead.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    path::{Path, PathBuf},
};

use keel_compose::{Dockerfile, MountSource, Origin, Project, RunCommand, SeatFiles, Service, Spanned};
use keel_diag::{Diagnostic, Span};
use keel_model::{BuildStep, DockerfileSource, ProcessSpec, ProcessUser, Protocol};
use sha2::{Digest, Sha256};

use super::{
    path_map::PathMap,
    run_as::{RunAs, run_as},
};

/// Makes the process that stands for a service. `None` if it can't run here; the diagnostics say why.
pub(super) fn process_spec(
    project: &Project,
    service: &Service,
    cache: &Path,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<ProcessSpec> {
    let own = service.process.as_ref();
    let dockerfile = service.dockerfile.as_ref();
    let (argv, argv_span) = match command_line(service) {
        Ok(found) => found,
        Err(diagnostic) => {
            diagnostics.push(*diagnostic);
            return None;
        }
    };
    let map = path_map(service, diagnostics);
    let working_dir = working_dir(project, service, &map, diagnostics)?;
    let argv: Vec<String> = argv.iter().map(|word| map.map_word(word)).collect();
    let mut build = Vec::new();
    if let Some(line) = own.and_then(|own| own.build.as_ref()) {
        let folder = service.host_folder(project).to_owned();
        build.push(BuildStep::Shell { command: line.value.clone(), working_dir: folder });
    } else {
        name_skipped_runs(service, diagnostics);
    }
    let user = match run_as(service, diagnostics)? {
        RunAs::Ourselves => None,
        RunAs::Other(user) => Some(user),
    };
    let place = VenvPlace { cache, user: user.as_ref() };
    let venv = virtual_environment(service, &argv, &map, &working_dir, &place);
    let path_prefix = match &venv {
        Some(BuildStep::Pip { venv, .. }) => vec![venv.join("bin")],
        _ => Vec::new(),
    };
    build.extend(venv);
    let mut environment = BTreeMap::new();
    let built = dockerfile.iter().flat_map(|dockerfile| &dockerfile.environment);
    let extra = own.iter().flat_map(|own| &own.environment);
    for (name, value) in built.chain(&service.environment).chain(extra) {
        environment.insert(name.clone(), value.value.clone());
    }
    let is_set = |name: &str| service.environment.contains_key(name);
    if let Some(path) = environment.get_mut("PATH").filter(|_| !is_set("PATH")) {
        *path = path_here(path, &map);
    }
    let program = Program { argv: &argv, span: argv_span, path: environment.get("PATH") };
    check_program(service, &program, &working_dir, &build, diagnostics)?;
    build.extend(context(service));
    diagnostics.extend(name_udp(service));
    let hostname = service.hostname.as_ref().map(|name| name.value.clone());
    let path_map = map.into_entries();
    Some(ProcessSpec { argv, environment, working_dir, build, path_map, path_prefix, hostname, user })
}

/// Names the UDP ports that the file publishes: of a local process Evenkeel publishes TCP ports alone.
fn name_udp(service: &Service) -> impl Iterator<Item = Diagnostic> {
    let udp = service.ports.iter().filter(|port| port.protocol == Protocol::Udp);
    udp.map(|mapping| {
        let (name, port) = (&service.name.value, mapping.target);
        Diagnostic::warning("process::udp-port", format!("UDP port {port} of `{name}` isn't published"))
            .at(mapping.span, "of a local process only TCP ports are; nobody is reached here through 127.0.0.1")
            .help(format!(
                "send to port {port} at the instance's own address, which `evenkeel ps` shows, or run it as a container: `evenkeel up --driver docker`"
            ))
    })
}

/// Says which files the service is made of, where its Dockerfile can be read.
fn context(service: &Service) -> Option<BuildStep> {
    let build = super::container::image_build(service.build.as_ref()?);
    let text = match &build.dockerfile {
        DockerfileSource::Text(text) => text.clone(),
        DockerfileSource::File(path) => std::fs::read_to_string(path).ok()?,
    };
    Some(BuildStep::Context { patterns: keel_compose::context_patterns(&text), build })
}

/// Finds what is run: `x-process.command`, else entrypoint and command as Compose joins them. What has no Dockerfile
/// here runs elsewhere or not at all: its command was meant for the root of an image.
fn command_line(service: &Service) -> Result<(Vec<String>, Span), Box<Diagnostic>> {
    let name = &service.name.value;
    let nothing = || {
        Box::new(
            Diagnostic::error("process::no-command", format!("`{name}` doesn't say what to run"))
                .at(service.name.span, "neither `x-process: command:` nor a Dockerfile's CMD or ENTRYPOINT")
                .help(format!(
                    "add `command:`, or x-process:\n    {name}:\n      x-process:\n        command: ..."
                )),
        )
    };
    if let Some(own) = service.process.as_ref().and_then(|own| own.command.as_ref()) {
        return Some((own.value.clone(), own.span)).filter(|(argv, _)| !argv.is_empty()).ok_or_else(nothing);
    }
    let Some(dockerfile) = service.dockerfile.as_ref() else { return Err(nothing()) };
    let entrypoint = service.entrypoint.as_ref().or(dockerfile.entrypoint.as_ref());
    // As the engine does: an entrypoint of the file's own makes the image's command void, and an empty command counts as
    // none.
    let is_given = |words: &&Spanned<Vec<String>>| !words.value.is_empty();
    let has_entrypoint = service.entrypoint.as_ref().is_some_and(|words| is_given(&words));
    let built = dockerfile.command.as_ref().filter(|_| !has_entrypoint);
    let command = service.command.as_ref().filter(is_given).or(built);
    let words = |part: Option<&Spanned<Vec<String>>>| part.map(|part| part.value.clone()).unwrap_or_default();
    let argv = [words(entrypoint), words(command)].concat();
    let span = command.or(entrypoint).map_or(service.name.span, |part| part.span);
    match argv.first() {
        None => Err(nothing()),
        Some(first) if first.starts_with('-') => {
            let base = dockerfile.base.as_ref().map_or("", |base| &base.value);
            let message = format!("`{name}` names arguments and no program");
            Err(Box::new(
                Diagnostic::error("process::no-command", message)
                    .at(span, format!("the program is the ENTRYPOINT of `{base}`, which isn't known here"))
                    .help(format!(
                        "say what to run here:\n    {name}:\n      x-process:\n        command: ..."
                    )),
            ))
        }
        Some(_) => Ok((argv, span)),
    }
}

pub(super) fn path_map(service: &Service, diagnostics: &mut Vec<Diagnostic>) -> PathMap {
    let mut map = PathMap::default();
    let files = SeatFiles::of(service);
    // A file copied under its own name makes its folder known too, for a working directory that nothing else covers.
    for entry in &files.entries {
        if let Some(Origin::Host(host)) = entry.layer.origin()
            && host.is_file()
            && host.file_name() == entry.container.file_name()
            && let (Some(folder), Some(host_folder)) = (entry.container.parent(), host.parent())
            && folder != Path::new("/")
        {
            map.add(folder, host_folder);
        }
    }
    for entry in &files.entries {
        match entry.layer.origin() {
            None => {}
            Some(Origin::Host(host)) => map.add(&entry.container, host),
            Some(Origin::Text(_)) => diagnostics.push(
                Diagnostic::warning(
                    "process::inline-file",
                    format!("{} isn't placed for a local process", entry.container.display()),
                )
                .at(entry.span, "its content stands in the file")
                .help("put the content into a file of this folder and mount that"),
            ),
        }
    }
    for mount in &service.volumes {
        if let MountSource::Named(name) = &mount.source {
            diagnostics.push(
                Diagnostic::warning(
                    "process::volume",
                    format!("the volume `{name}` isn't mounted for a local process"),
                )
                .at(mount.span, format!("{} is this host's own", mount.target))
                .help("mount a folder of this host instead, or tell the program another path with `environment`"),
            );
        }
    }
    map
}

fn working_dir(
    project: &Project,
    service: &Service,
    map: &PathMap,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<PathBuf> {
    let built = service.dockerfile.as_ref().and_then(|dockerfile| dockerfile.working_dir.as_ref());
    let folder = service.host_folder(project).to_owned();
    let Some(wanted) = service.working_dir.as_ref().or(built) else { return Some(folder) };
    if let Some(mapped) = map.map(&wanted.value) {
        return Some(mapped);
    }
    let here = project.folder.join(&wanted.value);
    if here.is_dir() {
        return Some(here);
    }
    if service.process.as_ref().is_some_and(|own| own.command.is_some()) {
        return Some(folder);
    }
    diagnostics.push(
        Diagnostic::error("process::no-folder", format!("{} isn't there on this host", wanted.value))
            .at(wanted.span, format!("`{}` runs in this folder", service.name.value))
            .help("copy or mount a folder of this host there, or say what to run with `x-process: command:`"),
    );
    None
}

/// RUN lines other than `pip install` are not run: say so once for each service.
fn name_skipped_runs(service: &Service, diagnostics: &mut Vec<Diagnostic>) {
    let Some(dockerfile) = &service.dockerfile else { return };
    let skipped: Vec<_> = dockerfile
        .runs
        .iter()
        .filter(|run| run.commands.iter().any(|command| matches!(command, RunCommand::Other(_))))
        .collect();
    if skipped.is_empty() || service.process.as_ref().is_some_and(|own| own.command.is_some()) {
        return;
    }
    let mut diagnostic = Diagnostic::warning(
        "process::run-skipped",
        format!("{} RUN line(s) of `{}` are not run for local processes", skipped.len(), service.name.value),
    );
    for run in skipped {
        diagnostic = diagnostic.at(run.span, "not run");
    }
    diagnostics.push(
        diagnostic.help("if this host lacks what they install, say how to build with `x-process: build:`"),
    );
}

/// Where virtual environments are kept, and for whom one is.
struct VenvPlace<'a> {
    cache: &'a Path,
    /// A user other than this process's.
    user: Option<&'a ProcessUser>,
}

/// Decides about a virtual environment: where `pip install` is run, and where an image of Python gives a `python` that
/// this host hasn't under that name.
fn virtual_environment(
    service: &Service,
    argv: &[String],
    map: &PathMap,
    working_dir: &Path,
    place: &VenvPlace<'_>,
) -> Option<BuildStep> {
    let dockerfile = service.dockerfile.as_ref()?;
    let installs: Vec<Vec<String>> = dockerfile
        .pip_installs()
        .map(|words| words.iter().map(|word| map.map_word(word)).collect())
        .collect();
    let lacks_python =
        argv.first().is_some_and(|program| program == "python") && find_program("python").is_none();
    if installs.is_empty() && !lacks_python {
        return None;
    }
    let runs_in =
        dockerfile.runs.iter().find(|run| run.commands.iter().any(|c| matches!(c, RunCommand::Pip(_))));
    let folder = runs_in.and_then(|run| map.map(&run.working_dir)).unwrap_or_else(|| working_dir.to_owned());
    let digest = pip_digest(dockerfile, &installs, &folder);
    // Another user may not be let to the interpreter that is this one's first.
    let kept_for = place.user.map(|user| format!("-{}-{}", user.uid, user.gid)).unwrap_or_default();
    let venv = place.cache.join("venv").join(digest + &kept_for);
    Some(BuildStep::Pip { installs, venv, working_dir: folder })
}

/// Digests what decides the content of a virtual environment: the arguments, the requirement files, the interpreter.
fn pip_digest(dockerfile: &Dockerfile, installs: &[Vec<String>], folder: &Path) -> String {
    let mut hash = Sha256::new();
    let mut add = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    add(find_program("python3")
        .and_then(|path| path.canonicalize().ok())
        .unwrap_or_default()
        .as_os_str()
        .as_encoded_bytes());
    add(dockerfile.base.as_ref().map_or("", |base| &base.value).as_bytes());
    for words in installs {
        for word in words {
            add(word.as_bytes());
            // A requirement file, a constraint file, or a project of one's own: its description counts.
            for path in [
                folder.join(word),
                folder.join(word).join("pyproject.toml"),
                folder.join(word).join("setup.py"),
            ] {
                if let Ok(content) = std::fs::read(path) {
                    add(&content);
                }
            }
        }
        add(b"\0");
    }
    hex(&hash.finalize(), 16)
}

/// Writes the first bytes of a digest in hexadecimal.
pub(super) fn hex(bytes: &[u8], length: usize) -> String {
    bytes.iter().take(length).map(|byte| format!("{byte:02x}")).collect()
}

/// The PATH of a Dockerfile on this host: folders that come from here under their names here, and behind them what
/// this host has, since the image's own programs aren't here.
fn path_here(path: &str, map: &PathMap) -> String {
    let mapped = |folder: &str| {
        let here = map.map(folder).filter(|here| folder.starts_with('/') && here.is_dir());
        here.map_or_else(|| folder.to_owned(), |here| here.to_string_lossy().into_owned())
    };
    let mut folders: Vec<String> = path.split(':').filter(|folder| !folder.is_empty()).map(mapped).collect();
    let host = std::env::var("PATH").unwrap_or_default();
    for folder in host.split(':').filter(|folder| !folder.is_empty()) {
        if !folders.iter().any(|known| known == folder) {
            folders.push(folder.to_owned());
        }
    }
    folders.join(":")
}

/// What is run, and where it is looked for.
struct Program<'a> {
    argv: &'a [String],
    span: Span,
    /// PATH, where the files set it; else this process's.
    path: Option<&'a String>,
}

/// Checks that the program is there, before anything starts. What a build makes is checked when it has been built.
fn check_program(
    service: &Service,
    run: &Program<'_>,
    working_dir: &Path,
    build: &[BuildStep],
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<()> {
    let span = run.span;
    let program = run.argv.first()?;
    let is_there = if program.contains('/') {
        working_dir.join(program).exists()
    } else if let Some(path) = run.path {
        // Images have `python`; many hosts have only `python3`.
        let names = [program.as_str(), "python3"];
        let names = if program == "python" { &names[..] } else { &names[..1] };
        names.iter().any(|name| find_in(path.as_ref(), working_dir, name).is_some())
    } else {
        find_program(program).is_some()
    };
    if is_there || !build.is_empty() {
        return Some(());
    }
    let name = &service.name.value;
    let diagnostic = if program.starts_with('/') {
        Diagnostic::error("process::no-path", format!("{program} isn't there on this host"))
            .at(span, format!("`{name}` would run it"))
    } else {
        Diagnostic::error("process::no-program", format!("`{program}` is not found on this host"))
            .at(span, format!("`{name}` would run it"))
    };
    diagnostics.push(diagnostic.help(format!(
        "install it, or say what to run here:\n    {name}:\n      x-process:\n        command: ..."
    )));
    None
}

/// Looks a program up in this process's PATH.
fn find_program(name: &str) -> Option<PathBuf> {
    find_in(&std::env::var_os("PATH")?, Path::new("/"), name)
}

fn find_in(path: &OsStr, working_dir: &Path, name: &str) -> Option<PathBuf> {
    let folders = std::env::split_paths(path).map(|folder| working_dir.join(folder).join(name));
    folders.into_iter().find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
