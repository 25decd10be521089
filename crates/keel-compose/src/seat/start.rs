//! What a balancer's container does when it starts: its entrypoint's templates, its command, and how nginx is called.
//!
//! <https://hub.docker.com/_/nginx> says how the image renders `/etc/nginx/templates`; its entrypoint does so only when the
//! command is nginx itself. Nothing is run here. What can't be followed is named.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use keel_diag::{Diagnostic, Span};
use regex::Regex;

use super::{
    envsubst::{Names, envsubst},
    expand::Unset,
    files::{Layer, SeatFiles},
    image_of, repository,
    shell::{NotRun, Shell},
};
use crate::{Dockerfile, MountSource, Origin, Run, Service};

/// What stands in nginx's seat: the container's files, and how nginx is called there.
#[derive(Clone, Debug)]
pub struct SeatImage {
    /// Its files, from the image's own to the mounts and to what is written at the start.
    pub files: SeatFiles,
    /// How nginx is called.
    pub invocation: Invocation,
    /// What has no effect here.
    pub diagnostics: Vec<Diagnostic>,
}

/// How nginx is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// Where relative paths begin (`-p`).
    pub prefix: PathBuf,
    /// The configuration file (`-c`).
    pub conf_path: PathBuf,
    /// Directives of the command line (`-g`).
    pub globals: Vec<String>,
}

/// The texts that the images have of their own: the main file (which includes `CONF_D`), the default site, its page, and
/// the page of errors.
#[derive(Clone, Copy, Debug)]
pub struct ImageTexts<'a> {
    /// nginx.conf, with [`ImageTexts::CONF_D`] where the image's folder of sites belongs.
    pub main: &'a str,
    /// The default site, with [`ImageTexts::HTML`] as its root.
    pub site: &'a str,
    /// index.html.
    pub page: &'a str,
    /// 50x.html.
    pub error_page: &'a str,
}

impl ImageTexts<'_> {
    /// The folder of sites in the image `nginx`.
    pub const CONF_D: &'static str = "/etc/nginx/conf.d";
    /// The folder of pages in the image `nginx`.
    pub const HTML: &'static str = "/usr/share/nginx/html";
}

/// Where an image keeps what.
struct Layout {
    prefix: &'static str,
    conf: &'static str,
    sites: &'static str,
    html: &'static str,
}

impl Layout {
    fn of(service: &Service) -> Self {
        match image_of(service).map(repository) {
            Some("openresty") => Self {
                prefix: "/usr/local/openresty/nginx",
                conf: "/usr/local/openresty/nginx/conf/nginx.conf",
                sites: ImageTexts::CONF_D,
                html: "/usr/local/openresty/nginx/html",
            },
            Some("angie") => Self {
                prefix: "/etc/angie",
                conf: "/etc/angie/angie.conf",
                sites: "/etc/angie/http.d",
                html: "/usr/share/angie/html",
            },
            _ => Self {
                prefix: "/etc/nginx",
                conf: "/etc/nginx/nginx.conf",
                sites: ImageTexts::CONF_D,
                html: ImageTexts::HTML,
            },
        }
    }

    fn files(&self, texts: ImageTexts<'_>, span: Span) -> SeatFiles {
        let mut files = SeatFiles::default();
        let here =
            |text: &str| text.replace(ImageTexts::CONF_D, self.sites).replace(ImageTexts::HTML, self.html);
        let all = [
            (PathBuf::from(self.conf), texts.main),
            (Path::new(self.sites).join("default.conf"), texts.site),
            (Path::new(self.html).join("index.html"), texts.page),
            (Path::new(self.html).join("50x.html"), texts.error_page),
        ];
        for (path, text) in all {
            files.add(&path, Layer::Copied(Origin::Text(here(text))), span);
        }
        files
    }
}

/// What RUN lines see.
struct Built<'a> {
    /// ENV: what the service sets isn't there yet.
    environment: BTreeMap<String, String>,
    /// Folders of pages.
    pages: Vec<&'a str>,
}

impl<'a> Built<'a> {
    fn of(dockerfile: &'a Dockerfile, layout: &Layout) -> Self {
        let environment = dockerfile.environment.iter();
        let copied = dockerfile.copies.iter().map(|copy| copy.destination.trim_end_matches('/'));
        let is_deep = |place: &&str| place.matches('/').count() > 1;
        let pages = [layout.html, "/var/www", "/srv/"];
        Self {
            environment: environment.map(|(name, value)| (name.clone(), value.value.clone())).collect(),
            pages: pages.into_iter().chain(copied.filter(is_deep)).collect(),
        }
    }
}

fn shown(not_run: &[NotRun]) -> Vec<String> {
    not_run.iter().map(|one| one.shown.clone()).collect()
}

/// The folder that the container starts in.
fn working_dir(service: &Service) -> PathBuf {
    let built = service.dockerfile.as_ref().and_then(|dockerfile| dockerfile.working_dir.as_ref());
    let folder = service.working_dir.as_ref().or(built).map_or("/", |folder| folder.value.as_str());
    Path::new("/").join(folder)
}

/// A command in the container, and the line that says it.
struct Started {
    argv: Vec<String>,
    span: Span,
    /// Whether the image's own entrypoint comes before it.
    by_image: bool,
}

impl SeatImage {
    /// Follows what the service's image, Dockerfile, mounts and command make of the configuration.
    pub fn of(service: &Service, texts: ImageTexts<'_>, volumes: &BTreeMap<String, PathBuf>) -> Self {
        let layout = Layout::of(service);
        let span = service.image.as_ref().map_or(service.name.span, |image| image.span);
        let mut image = Self {
            files: layout.files(texts, span),
            invocation: Invocation {
                prefix: layout.prefix.into(),
                conf_path: layout.conf.into(),
                globals: Vec::new(),
            },
            diagnostics: Vec::new(),
        };
        let environment = environment(service);
        image.build(service, &layout);
        image.files.add_mounts(service, volumes);
        image.name_volumes(service);
        let started = started(service);
        if started.as_ref().is_none_or(|started| started.by_image) {
            image.templates(&environment, service, &layout);
        }
        if let Some(started) = started {
            image.start(&started, environment, working_dir(service));
        }
        image
    }

    /// Follows COPY and RUN in their order.
    fn build(&mut self, service: &Service, layout: &Layout) {
        let (Some(build), Some(dockerfile)) = (&service.build, &service.dockerfile) else { return };
        let built = Built::of(dockerfile, layout);
        let mut runs = dockerfile.runs.iter().peekable();
        for copy in &dockerfile.copies {
            while let Some(run) = runs.next_if(|run| run.span.start < copy.span.start) {
                self.run_line(run, &built);
            }
            let before = self.files.entries.len();
            self.files.add_copy(copy, dockerfile, &build.context.value);
            let Some(from) = &copy.from else { continue };
            let added = self.files.entries.get(before).and_then(|entry| entry.layer.origin());
            let diagnostic = match added {
                Some(Origin::Host(path)) if path.exists() => {
                    let message = format!("the stage `{from}` isn't built for the balancer's place");
                    Diagnostic::warning("join::stage", message)
                        .at(copy.span, format!("{} is served as it lies here", path.display()))
                }
                _ => {
                    // Better nothing than the image's own page where the project's should be.
                    self.files.add(Path::new(&copy.destination), Layer::Removed, copy.span);
                    let message =
                        format!("what the stage `{from}` builds for {} isn't here", copy.destination);
                    Diagnostic::error("join::stage", message)
                        .at(copy.span, "no stage is built for the balancer's place: nothing is served from there")
                        .help("build it into the folder of the build context that the stage has it in, or mount it")
                }
            };
            self.diagnostics.push(diagnostic);
        }
        for run in runs {
            self.run_line(run, &built);
        }
    }

    /// Follows a RUN line. What installs programs or builds something has no effect on a configuration, as a rule, and isn't
    /// named; what is about nginx's files is an error, what is about pages a warning.
    fn run_line(&mut self, run: &Run, built: &Built<'_>) {
        let folder = PathBuf::from(&run.working_dir);
        let mut shell =
            Shell::new(&mut self.files, built.environment.clone(), Unset::Unknown, folder, run.span);
        match serde_json::from_str::<Vec<String>>(&run.text) {
            Ok(argv) => shell.argv(&argv),
            Err(_) => shell.run(&run.text),
        }
        let (all, cut) = (shell.not_run, shell.cut);
        let is_about = |one: &NotRun, place: &str| {
            one.text.contains(place) || one.folder.as_ref().is_some_and(|folder| folder.starts_with(place))
        };
        let (about, others): (Vec<NotRun>, Vec<NotRun>) =
            all.into_iter().partition(|one| is_about(one, "/etc/nginx") || one.text.contains(".conf"));
        self.name_not_run(&shown(&about), run.span);
        let pages = others.iter().filter(|one| built.pages.iter().any(|place| is_about(one, place)));
        let pages = shown(&pages.cloned().collect::<Vec<_>>());
        if !pages.is_empty() {
            self.diagnostics.push(
                Diagnostic::warning(
                    "join::page-not-made",
                    format!("`{}` isn't run in the balancer's place", pages.join("`, `")),
                )
                .at(run.span, "pages that it would make or change are served as they were before")
                .help("make them in the folder that is copied, or mount what it makes"),
            );
        }
        self.name_cut(cut, run.span);
    }

    /// Names what is longer than commands are followed.
    fn name_cut(&mut self, cut: Option<&'static str>, span: Span) {
        let Some(reason) = cut else { return };
        self.diagnostics.push(
            Diagnostic::error("join::command-too-long", format!("this is followed in part only: {reason}"))
                .at(span, "what comes after that has no effect in the balancer's place")
                .help("write what it makes into a file and mount that"),
        );
    }

    /// Names a folder of which not all files are looked at.
    fn name_too_many(&mut self, folder: &Path, span: Span) {
        if self.files.is_cut_below(folder) {
            let message =
                format!("{} has more than 10,000 files, or folders more than 8 deep", folder.display());
            self.diagnostics.push(
                Diagnostic::warning("join::too-many-files", message)
                    .at(span, "those beyond are not looked at"),
            );
        }
    }

    /// Renders the templates, as the image's entrypoint does.
    fn templates(&mut self, environment: &BTreeMap<String, String>, service: &Service, layout: &Layout) {
        let setting = |name: &str, default: &str| {
            environment.get(name).filter(|value| !value.is_empty()).map_or(default, String::as_str).to_owned()
        };
        let folder = PathBuf::from(setting("NGINX_ENVSUBST_TEMPLATE_DIR", "/etc/nginx/templates"));
        let suffix = setting("NGINX_ENVSUBST_TEMPLATE_SUFFIX", ".template");
        let output = PathBuf::from(setting("NGINX_ENVSUBST_OUTPUT_DIR", layout.sites));
        let mut visible = environment.clone();
        let filter = setting("NGINX_ENVSUBST_FILTER", "");
        match Regex::new(&filter) {
            Ok(filter) => visible.retain(|name, _| filter.is_match(name)),
            Err(error) => {
                let message = format!("`NGINX_ENVSUBST_FILTER` is no expression: {error}");
                let span = service
                    .environment
                    .get("NGINX_ENVSUBST_FILTER")
                    .map_or(service.name.span, |value| value.span);
                self.diagnostics.push(
                    Diagnostic::error("join::template", message).at(span, "all variables are replaced"),
                );
            }
        }
        self.name_too_many(&folder, service.name.span);
        for path in self.files.below(&folder) {
            let Ok(below) = path.strip_prefix(&folder) else { continue };
            let Some(name) = below.to_str().and_then(|name| name.strip_suffix(&suffix)) else { continue };
            let (Some(text), Some(span)) = (self.files.text(&path), self.span_of(&path)) else { continue };
            let rendered = envsubst(&text, &visible, &Names::Defined);
            self.files.add(&output.join(name), Layer::Copied(Origin::Text(rendered)), span);
        }
        self.name_scripts(service.name.span);
    }

    /// Names the scripts that the image's entrypoint would run.
    fn name_scripts(&mut self, span: Span) {
        let folder = Path::new("/docker-entrypoint.d");
        self.name_too_many(folder, span);
        let scripts = self.files.below(folder);
        let scripts = scripts.iter().filter(|path| {
            path.extension().is_some_and(|extension| extension == "sh" || extension == "envsh")
        });
        let named: Vec<(String, Span)> =
            scripts.filter_map(|path| Some((path.display().to_string(), self.span_of(path)?))).collect();
        for (path, span) in named {
            self.name_not_run(&[path], span);
        }
    }

    fn span_of(&self, path: &Path) -> Option<Span> {
        let entry = self.files.entries.iter().rev().find(|entry| path.starts_with(&entry.container))?;
        Some(entry.span)
    }

    fn start(&mut self, started: &Started, environment: BTreeMap<String, String>, folder: PathBuf) {
        let mut shell = Shell::new(&mut self.files, environment, Unset::Empty, folder, started.span);
        shell.argv(&started.argv);
        let (start, waits, not_run, cut) = (shell.start, shell.waits, shown(&shell.not_run), shell.cut);
        self.name_cut(cut, started.span);
        if !waits.is_empty() {
            let list = waits.join("`, `");
            self.diagnostics.push(
                Diagnostic::warning(
                    "join::command-waits",
                    format!("`{list}` isn't run in the balancer's place"),
                )
                .at(started.span, "it waits for others, or reloads now and then")
                .help("requests wait for instances by themselves; `evenkeel reload` reads files again"),
            );
        }
        self.name_not_run(&not_run, started.span);
        match start {
            Some(argv) => self.call(&argv, started.span),
            None if not_run.is_empty() && cut.is_none() => {
                self.name_not_run(&[started.argv.join(" ")], started.span);
            }
            None => {}
        }
    }

    fn name_not_run(&mut self, commands: &[String], span: Span) {
        if commands.is_empty() {
            return;
        }
        let list = commands.join("`, `");
        self.diagnostics.push(
            Diagnostic::error("join::command-not-run", format!("`{list}` isn't run in the balancer's place"))
                .at(span, "nothing is run there: what it would change stays unchanged")
                .help("write what it makes into a file and mount that"),
        );
    }

    /// Reads nginx's own arguments.
    fn call(&mut self, argv: &[String], span: Span) {
        let mut arguments = argv.iter().skip(1);
        while let Some(argument) = arguments.next() {
            let Some(flags) = argument.strip_prefix('-') else {
                self.name_not_run(&[argv.join(" ")], span);
                return;
            };
            let mut letters = flags.char_indices();
            let Some((_, letter)) = letters.next() else { continue };
            let attached = flags.get(letter.len_utf8()..).filter(|rest| !rest.is_empty());
            match letter {
                'c' | 'g' | 'p' | 'e' => {
                    let value = attached.or_else(|| arguments.next().map(String::as_str)).unwrap_or_default();
                    match letter {
                        'c' => self.invocation.conf_path = self.invocation.prefix.join(value),
                        'g' => self.invocation.globals.push(value.to_owned()),
                        'p' => self.invocation.prefix = value.into(),
                        _ => {}
                    }
                }
                'q' => {}
                _ => self.name_not_run(&[argv.join(" ")], span),
            }
        }
    }

    /// Names the volumes of which nobody knows a folder of this host.
    fn name_volumes(&mut self, service: &Service) {
        for mount in &service.volumes {
            let target = Path::new(&mount.target);
            let is_cache = ["/var/cache", "/var/log", "/var/run", "/run", "/tmp"]
                .iter()
                .any(|path| target.starts_with(path));
            let is_known = self.files.place(target).is_some();
            if let (MountSource::Named(name), false, false) = (&mount.source, is_cache, is_known) {
                let message = format!("the volume `{name}` has no folder on this host");
                self.diagnostics.push(
                    Diagnostic::warning("join::volume", message)
                        .at(mount.span, format!("the balancer finds nothing at {}", mount.target))
                        .help("mount a folder of this host in all services that share it"),
                );
            }
        }
    }
}

/// The variables of the container, as far as they are known.
fn environment(service: &Service) -> BTreeMap<String, String> {
    let built = service.dockerfile.iter().flat_map(|dockerfile| &dockerfile.environment);
    let own = service.process.iter().flat_map(|own| &own.environment);
    let declared = built.chain(&service.environment).chain(own);
    let mut all: BTreeMap<String, String> =
        declared.map(|(name, value)| (name.clone(), value.value.clone())).collect();
    // The image's own script sets this one from the container's resolver.
    if all.contains_key("NGINX_ENTRYPOINT_LOCAL_RESOLVERS") {
        all.insert("NGINX_LOCAL_RESOLVERS".into(), "127.0.0.11".into());
    }
    let hostname = service.hostname.as_ref().map_or(&service.name.value, |name| &name.value);
    all.entry("HOSTNAME".into()).or_insert_with(|| hostname.clone());
    all
}

/// What the container starts; `None` where that is the image's own.
fn started(service: &Service) -> Option<Started> {
    let dockerfile = service.dockerfile.as_ref();
    let entrypoint =
        service.entrypoint.as_ref().or(dockerfile.and_then(|dockerfile| dockerfile.entrypoint.as_ref()));
    // An entrypoint of the file's own makes the image's command void.
    let built = dockerfile
        .and_then(|dockerfile| dockerfile.command.as_ref())
        .filter(|_| service.entrypoint.is_none());
    let command = service.command.as_ref().or(built).filter(|command| !command.value.is_empty());
    let words = command.map(|command| command.value.clone()).unwrap_or_default();
    let span = command.or(entrypoint)?.span;
    let is_images = |program: &String| program.rsplit('/').next() == Some("docker-entrypoint.sh");
    let (mut argv, by_image) = match entrypoint.map(|entrypoint| entrypoint.value.as_slice()) {
        None => (words, true),
        Some([first, rest @ ..]) if is_images(first) => ([rest, &words].concat(), true),
        Some(entrypoint) => ([entrypoint, &words].concat(), false),
    };
    let mut by_image = by_image;
    if argv.first().is_some_and(is_images) {
        argv.remove(0);
        by_image = true;
    }
    let first = argv.first()?;
    // The image's entrypoint renders templates for nginx alone.
    by_image &= matches!(first.rsplit('/').next(), Some("nginx" | "nginx-debug"));
    Some(Started { argv, span, by_image })
}
