//! Dockerfiles, and the balancer's seat.

use std::{collections::BTreeMap, path::Path};

use crate::common::{Case, pairs};
use keel_compose::{
    BuildInputs, CopySource, Dockerfile, Origin, RunCommand, SeatFiles, balancer_seats, is_balancer_seat,
};
use keel_diag::Sources;

fn parse_with(text: &str, args: &[(&str, &str)], target: Option<&str>) -> (Dockerfile, String) {
    let mut sources = Sources::default();
    let id = sources.add("Dockerfile", text);
    let args: BTreeMap<String, String> =
        args.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let (dockerfile, diagnostics) =
        Dockerfile::parse(text, id, &BuildInputs { args: &args, target, path: "/host/bin" });
    let said: Vec<String> = diagnostics
        .iter()
        .map(|d| {
            let line = d.span().map_or(0, |span| sources.position(span).line);
            let help = d.help.first().map_or(String::new(), |help| format!(" ({help})"));
            format!("{line}: {}{help}", d.message)
        })
        .collect();
    (dockerfile, said.join("\n"))
}

#[track_caller]
fn parse(text: &str) -> Dockerfile {
    let (dockerfile, said) = parse_with(text, &[], None);
    assert_eq!(said, "");
    dockerfile
}

fn argv(words: Option<keel_compose::Spanned<Vec<String>>>) -> Vec<String> {
    words.map(|words| words.value).unwrap_or_default()
}

#[test]
fn reads_what_people_write() {
    let file = parse(
        r#"# syntax=docker/dockerfile:1
FROM python:3.11-slim
LABEL org.x="a b" other=c
ENV A=1 B="two words" \
    # a comment in between
    C=${A:-early}
ENV OLD the old form
WORKDIR /app
COPY --chown=app:app requirements.txt ./
RUN --mount=type=cache,target=/cache \
    pip install --no-cache-dir -r requirements.txt && \
    rm -rf /tmp/*
COPY . .
USER app
EXPOSE 5000 53/udp
STOPSIGNAL SIGINT
VOLUME ["/data"]
HEALTHCHECK --interval=5s --retries=2 CMD curl -f http://localhost:5000/ || exit 1
ENTRYPOINT ["python"]
CMD ["app.py"]
"#,
    );
    assert_eq!(file.base.unwrap().value, "python:3.11-slim");
    assert_eq!(pairs(&file.environment), "A=1 B=two words C=early OLD=the old form");
    assert_eq!(pairs(&file.labels), "org.x=a b other=c");
    assert_eq!(file.working_dir.unwrap().value, "/app");
    let copies: Vec<_> =
        file.copies.iter().map(|copy| (copy.sources.clone(), copy.destination.as_str())).collect();
    let path = |text: &str| vec![CopySource::Path(text.into())];
    assert_eq!(copies, [(path("requirements.txt"), "/app/"), (path("."), "/app/")]);
    let pip: Vec<String> = ["--no-cache-dir", "-r", "requirements.txt"].map(str::to_owned).into();
    assert_eq!(file.runs[0].commands, [RunCommand::Pip(pip), RunCommand::Other("rm -rf /tmp/*".into())]);
    assert_eq!(file.runs[0].working_dir, "/app");
    assert_eq!(file.expose.iter().map(|port| port.value.number).collect::<Vec<_>>(), [5000, 53]);
    assert_eq!(file.stop_signal.unwrap().value, 2);
    let check = file.healthcheck.unwrap();
    assert_eq!((check.interval.unwrap().as_secs(), check.retries), (5, Some(2)));
    assert_eq!(check.test.unwrap().argv().unwrap()[2], "curl -f http://localhost:5000/ || exit 1");
    assert_eq!(
        (argv(file.entrypoint), argv(file.command)),
        (vec!["python".to_owned()], vec!["app.py".to_owned()])
    );
}

#[test]
fn shell_forms_run_in_a_shell() {
    assert_eq!(argv(parse("FROM a\nCMD python app.py $X").command), ["/bin/sh", "-c", "python app.py $X"]);
    assert_eq!(argv(parse("FROM a\nSHELL [\"bash\", \"-lc\"]\nCMD x").command), ["bash", "-lc", "x"]);
    let (file, said) = parse_with("FROM a\nCMD ['python', 'app.py']", &[], None);
    assert_eq!(argv(file.command), ["/bin/sh", "-c", "['python', 'app.py']"]);
    insta::assert_snapshot!(said, @r#"
    2: this is not a list of texts in double quotes, so a shell runs it as it stands (write it like ["python", "app.py"])
    "#);
}

#[test]
fn stages_inherit_from_each_other() {
    let text = "
ARG TAG=1
FROM rust:$TAG AS build
WORKDIR /src
FROM debian AS base
ENV A=1
CMD [\"inherited\"]
FROM base
COPY --from=build /src/app /app
ENTRYPOINT [\"/app\"]
";
    let file = parse(text);
    assert_eq!(file.base.as_ref().unwrap().value, "debian");
    assert_eq!(
        (argv(file.entrypoint), argv(file.command), pairs(&file.environment)),
        (vec!["/app".to_owned()], vec![], "A=1".into())
    );
    assert_eq!(file.copies[0].from.as_deref(), Some("build"));
    let (build, _) = parse_with(text, &[("TAG", "2")], Some("build"));
    assert_eq!(
        (build.base.unwrap().value.as_str(), build.working_dir.unwrap().value.as_str()),
        ("rust:2", "/src")
    );
    let (base, _) = parse_with(text, &[], Some("1"));
    assert_eq!(argv(base.command), ["inherited"]);
    assert_eq!(parse_with(text, &[], Some("nope")).1, "1: no stage is named `nope`");
}

#[test]
fn build_args() {
    let text = "ARG G=global\nFROM a\nARG G\nARG V=default\nARG U\nENV X=$V-${U:-none}-$G\nRUN pip install flask==$V";
    let value = |args: &[(&str, &str)]| pairs(&parse_with(text, args, None).0.environment);
    assert_eq!(value(&[]), "X=default-none-global");
    assert_eq!(value(&[("V", "1"), ("U", "2"), ("G", "3")]), "X=1-2-3");
    let (file, _) = parse_with(text, &[("V", "9")], None);
    assert_eq!(file.pip_installs().collect::<Vec<_>>(), [["flask==9"]]);
}

#[test]
fn working_dirs_add_up_and_escapes_change() {
    assert_eq!(parse("FROM a\nWORKDIR /a\nWORKDIR b\nWORKDIR ../c").working_dir.unwrap().value, "/a/c");
    let file = parse("# escape=`\nFROM a\nENV A=1 `\n B=c:\\x\n");
    assert_eq!(pairs(&file.environment), "A=1 B=c:\\x");
}

#[test]
fn heredocs() {
    let file = parse(
        "FROM nginx\nCOPY <<EOF /etc/nginx/conf.d/a.conf\nserver {}\nEOF\nRUN <<-'END'\n\tpip install x\n\techo hi\n\tEND\nCMD [\"x\"]\n",
    );
    let CopySource::Inline { name, text } = &file.copies[0].sources[0] else { panic!() };
    assert_eq!((name.as_str(), text.as_str()), ("EOF", "server {}\n"));
    assert_eq!(file.runs[0].commands.len(), 2);
    assert_eq!(file.pip_installs().count(), 1);
    assert_eq!(argv(file.command), ["x"]);
}

#[test]
fn mistakes() {
    let said = |text: &str| parse_with(text, &[], None).1;
    insta::assert_snapshot!(said("FORM python\nRUN x"), @"
    1: unknown instruction `FORM` (did you mean `FROM`?)
    2: RUN stands before the first FROM
    1: this Dockerfile has no FROM
    ");
    insta::assert_snapshot!(said("FROM a\nWORKDRI /x\nCOPY onlyone\nEXPOSE http\nSTOPSIGNAL X\nWORKDIR\nENV A='b\nHEALTHCHECK --x=1 PING\nSHELL sh\nCOPY <<EOF /a\nopen\n"), @"
    2: unknown instruction `WORKDRI` (did you mean `WORKDIR`?)
    3: COPY takes at least one source and a destination
    4: `http` is not a port (0 to 65535)
    5: `X` is not a signal
    6: WORKDIR needs an argument
    7: a quote is never closed
    8: `--x=1` is not understood
    8: HEALTHCHECK takes NONE, or CMD and a command
    9: SHELL takes a list in brackets
    10: the text that ends with `EOF` never ends
    ");
    insta::assert_snapshot!(said(""), @"1: this Dockerfile has no FROM");
}

const SEAT: &str = "
services:
  app: {build: ./app, ports: ['1:1']}
  web: {build: ./web, ports: ['8080:80']}
";

#[test]
fn the_seat_is_found_by_from_image_and_label() {
    let seat = |text: &str, dockerfile: &str| {
        let case = Case::new(&[
            ("compose.yaml", text),
            ("app/Dockerfile", "FROM python"),
            ("web/Dockerfile", dockerfile),
        ]);
        let (project, _) = case.both();
        balancer_seats(&project).first().map(|service| service.name.value.clone())
    };
    assert_eq!(seat(SEAT, "FROM node AS b\nFROM registry:5000/x/nginx:alpine").as_deref(), Some("web"));
    assert_eq!(seat(SEAT, "FROM nginx AS b\nFROM node"), None);
    assert_eq!(seat(SEAT, "FROM nginx\nLABEL evenkeel.role=instance"), None);
    let image =
        |image: &str, more: &str| seat(&format!("services: {{lb: {{image: {image}{more}}}}}"), "FROM a");
    assert_eq!(image("nginx", "").as_deref(), Some("lb"));
    assert_eq!(image("openresty/openresty:alpine", "").as_deref(), Some("lb"));
    assert_eq!(image("nginx-exporter", ""), None);
    assert_eq!(image("haproxy", ", labels: [evenkeel.role=balancer]").as_deref(), Some("lb"));
    assert_eq!(image("nginx", ", labels: {evenkeel.role: instance}"), None);
    assert_eq!(image("nginx", ", x-process: {command: nginx -c x}"), None);
    assert_eq!(image("nginx", ", profiles: [later]"), None);
    let two = "services: {a: {image: nginx}, b: {image: nginx, ports: ['80:80']}}";
    assert_eq!(balancer_seats(&Case::compose(two).project()).len(), 2);
}

#[test]
fn the_seats_files_lie_where_copy_and_mounts_say() {
    let case = Case::new(&[
        (
            "compose.yaml",
            "
services:
  web:
    build: ./web
    volumes: ['./over.conf:/etc/nginx/conf.d/over.conf:ro', './html:/usr/share/nginx/html']
    configs: [{source: extra, target: /etc/nginx/extra.conf}]
configs: {extra: {content: 'extra;'}}
",
        ),
        (
            "web/Dockerfile",
            "FROM nginx\nCOPY nginx.conf /etc/nginx/\nCOPY conf.d/*.conf /etc/nginx/conf.d/\nCOPY site /etc/nginx/site\nCOPY <<E /etc/nginx/inline.conf\ninline;\nE\nCOPY --from=x /y /z\n",
        ),
        ("web/nginx.conf", "main;"),
        ("web/conf.d/a.conf", "a;"),
        ("web/conf.d/over.conf", "hidden;"),
        ("web/conf.d/not.txt", ""),
        ("web/site/deep/b.conf", "b;"),
        ("over.conf", "over;"),
        ("html/index.html", "hi"),
    ]);
    let project = case.project();
    let seat = &project.services["web"];
    assert!(is_balancer_seat(seat));
    let files = SeatFiles::of(seat);
    let find = |path: &str| match files.find(Path::new(path)) {
        None => "nothing".to_owned(),
        Some(Origin::Text(text)) => format!("text {}", text.trim()),
        Some(Origin::Host(path)) => crate::common::below(&case, &path),
    };
    assert_eq!(find("/etc/nginx/nginx.conf"), "web/nginx.conf");
    assert_eq!(find("/etc/nginx/conf.d/a.conf"), "web/conf.d/a.conf");
    assert_eq!(find("/etc/nginx/conf.d/over.conf"), "over.conf");
    assert_eq!(find("/etc/nginx/conf.d/not.txt"), "nothing");
    assert_eq!(find("/etc/nginx/site/deep/b.conf"), "web/site/deep/b.conf");
    assert_eq!(find("/etc/nginx/site/deep/gone.conf"), "nothing");
    assert_eq!(find("/usr/share/nginx/html/../html/index.html"), "html/index.html");
    assert_eq!(find("/etc/nginx/inline.conf"), "text inline;");
    assert_eq!(find("/etc/nginx/extra.conf"), "text extra;");
    assert_eq!(find("/z"), "nothing");
    let listed = files.list(Path::new("/etc/nginx/conf.d"));
    assert_eq!(listed, [Path::new("/etc/nginx/conf.d/a.conf"), Path::new("/etc/nginx/conf.d/over.conf")]);
    assert_eq!(files.list(Path::new("/etc/nginx/site/deep")), [Path::new("/etc/nginx/site/deep/b.conf")]);
    let host = case.options.folder.join("html/index.html");
    assert_eq!(files.container_path(&host).unwrap(), Path::new("/usr/share/nginx/html/index.html"));
}

#[test]
fn a_missing_dockerfile_concerns_its_service_only() {
    let case = Case::new(&[
        (
            "compose.yaml",
            "services: {a: {build: ./a}, b: {build: ./b}, c: {build: ./a, x-process: {command: ./c}}}",
        ),
        ("b/x", ""),
    ]);
    let (project, said) = case.both();
    insta::assert_snapshot!(said, @"
    error[compose::missing-file]: DEMO/a is not there
      compose.yaml:1:23 `./a` named here
    error[compose::missing-file]: DEMO/b/Dockerfile is not there
      compose.yaml:1:40 `./b` named here
    ");
    assert_eq!(project.services.values().map(|s| s.faulty).collect::<Vec<_>>(), [true, true, false]);
}

#[test]
fn the_path_of_the_base_image_is_this_hosts() {
    let path = |text: &str| pairs(&parse(text).environment);
    assert_eq!(path("FROM a\nENV PATH=\"/opt/bin:$PATH\""), "PATH=/opt/bin:/host/bin");
    assert_eq!(path("FROM a\nENV PATH /opt/bin:${PATH}"), "PATH=/opt/bin:/host/bin");
    assert_eq!(
        path("FROM a\nENV X=/x PATH=$X:$PATH"),
        "PATH=:/host/bin X=/x",
        "X is not set yet in this line"
    );
    assert_eq!(
        path("FROM a AS b\nENV PATH=/one:$PATH\nFROM b\nENV PATH=/two:$PATH"),
        "PATH=/two:/one:/host/bin"
    );
    assert_eq!(path("FROM a\nARG PATH=/arg\nENV X=$PATH"), "X=/arg");
    assert_eq!(path("FROM a\nENV LD_LIBRARY_PATH=/x:$LD_LIBRARY_PATH"), "LD_LIBRARY_PATH=/x:");
}

#[test]
fn variables_as_buildkit_has_them() {
    let text = r#"ARG GLOBAL=g
FROM a
ARG GLOBAL
ARG OWN=o FILE=app.tar.gz
ENV OLD   two  "words" $OWN
ENV A=${OWN:-x} B=${NO:-y} C=${OWN:+z} D=${NO+z} E=${FILE%%.*} F=${FILE#*.} G=${FILE/.tar/} H=${GLOBAL}
ENV DOLLARS='$OWN' ESCAPED=\$OWN PRICE=5$
WORKDIR /srv/$OWN
"#;
    let file = parse(text);
    assert_eq!(
        pairs(&file.environment),
        "A=o B=y C=z D= DOLLARS=$OWN E=app ESCAPED=$OWN F=tar.gz G=app.gz H=g OLD=two  words o PRICE=5$"
    );
    assert_eq!(file.working_dir.unwrap().value, "/srv/o");
    let (_, said) = parse_with("FROM a\nENV A=1 B\nENV C", &[], None);
    insta::assert_snapshot!(said, @"
    2: `B` isn't of the form NAME=value
    3: `C` isn't of the form NAME=value
    ");
}

#[test]
fn expose_in_all_its_forms() {
    let ports = |line: &str| -> Vec<String> {
        let file = parse(&format!("FROM a\nARG PORTS='80 443/TCP'\nARG EMPTY=\nEXPOSE {line}"));
        file.expose.iter().map(|port| format!("{}/{:?}", port.value.number, port.value.protocol)).collect()
    };
    assert_eq!(ports("${PORT}"), Vec::<String>::new());
    assert_eq!(ports("$EMPTY 81"), ["81/Tcp"]);
    assert_eq!(ports("$PORTS"), ["80/Tcp", "443/Tcp"]);
    assert_eq!(ports("8000-8002/udp"), ["8000/Udp", "8001/Udp", "8002/Udp"]);
    assert_eq!(ports("8080:80 127.0.0.1::81"), ["80/Tcp", "81/Tcp"]);
    let (_, said) = parse_with("FROM a\nEXPOSE http", &[], None);
    assert!(said.starts_with("2: `http` is not a port (0 to 65535)"), "{said}");
}

#[test]
fn healthchecks_in_all_their_forms() {
    let argv = |line: &str| {
        let check = parse(&format!("FROM a\nHEALTHCHECK {line}")).healthcheck.unwrap();
        check.test.unwrap().argv().map(|argv| argv.join(" "))
    };
    assert_eq!(argv("CMD [\"curl\", \"-f\", \"x\"]").unwrap(), "curl -f x");
    let flags =
        "--interval=1m30s --timeout=3s --start-period=5s --start-interval=1s --retries=3 \\\n  cmd a || b";
    assert_eq!(argv(flags).unwrap(), "/bin/sh -c a || b");
    assert_eq!(argv("none"), None);
}

#[test]
fn onbuild_is_done_by_the_stage_that_begins_with_it() {
    let text = "FROM a AS base
ONBUILD ENV A=1
ONBUILD COPY <<EOF /x
text
EOF
ONBUILD RUN pip install x
FROM base
CMD [\"y\"]
";
    let file = parse(text);
    assert_eq!(pairs(&file.environment), "A=1");
    assert_eq!((file.copies.len(), file.runs.len()), (1, 1));
    let (base, _) = parse_with(text, &[], Some("base"));
    assert!(base.environment.is_empty() && base.copies.is_empty());
}

#[test]
fn directives_and_continuations() {
    let file = parse("# escape=`\nFROM a\nENV A=1 `\n  B=C:\\dir\n");
    assert_eq!(pairs(&file.environment), "A=1 B=C:\\dir");
    let file = parse("# a comment\n# escape=`\nFROM a\nENV A=1 \\\n\n  B=2\n");
    assert_eq!(pairs(&file.environment), "A=1 B=2");
    let file = parse("FROM a\nENV A=x\\\\\nENV B=2\n");
    assert_eq!(pairs(&file.environment), "A=x\\ B=2");
}
