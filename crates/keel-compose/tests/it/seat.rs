//! What a balancer's image comes to: its files, and what is named.

use std::{collections::BTreeMap, path::Path};

use keel_compose::{ImageTexts, SeatImage};

use crate::common::Case;

fn image(case: &Case) -> (SeatImage, String) {
    let (project, _) = case.both();
    let texts = ImageTexts { main: "main", site: "site", page: "page", error_page: "error" };
    let image = SeatImage::of(&project.services["lb"], texts, &BTreeMap::new());
    let named = image.diagnostics.iter().map(|one| format!("{} {}", one.code, one.message));
    let named = named.collect::<Vec<_>>().join("\n");
    (image, named)
}

fn built(dockerfile: &str) -> (SeatImage, String) {
    let compose = "services: {lb: {build: ., ports: ['80:80'], environment: {MODE: b}}}\n";
    image(&Case::new(&[("compose.yaml", compose), ("Dockerfile", dockerfile), ("d/a", "A")]))
}

#[test]
fn run_lines_change_files_or_are_named() {
    let default = Path::new("/etc/nginx/conf.d/default.conf");
    let check = |lines: &str, text: Option<&str>, named: &str| {
        let (image, said) = built(&format!("FROM nginx\n{lines}\n"));
        assert_eq!(image.files.text(default).as_deref(), text, "{lines}");
        assert_eq!(said, named, "{lines}");
    };
    let isnt_run = |text: &str| format!("join::command-not-run `{text}` isn't run in the balancer's place");
    check("RUN apk add x && rm /etc/nginx/conf.d/default.conf", None, "");
    check("WORKDIR /etc/nginx\nRUN rm conf.d/default.conf", None, "");
    check("RUN cd /etc/nginx/conf.d && \\\n  echo a > default.conf", Some("a\n"), "");
    check("ENV MODE=a\nRUN echo $MODE > /etc/nginx/conf.d/default.conf", Some("a\n"), "");
    check("RUN cat > /etc/nginx/conf.d/default.conf <<EOF\na; rm x\nEOF", Some("a; rm x\n"), "");
    check("RUN <<EOF\ncat > /etc/nginx/conf.d/default.conf <<E\na\nE\nEOF", Some("a\n"), "");
    check("RUN [\"rm\", \"/etc/nginx/conf.d/default.conf\"]", None, "");
    check("RUN npm run build; ls /x", Some("site"), "");
    let conditional = "RUN test -f /x || rm /etc/nginx/conf.d/default.conf";
    check(conditional, Some("site"), &isnt_run("rm /etc/nginx/conf.d/default.conf"));
    let unknown = "echo $ARGUMENT > /etc/nginx/conf.d/default.conf";
    check(&format!("RUN {unknown}"), Some("site"), &isnt_run(unknown));
}

#[test]
fn run_lines_about_pages_are_warned_of() {
    let check = |lines: &str, named: &str| {
        let (_, said) = built(&format!("FROM nginx\n{lines}\n"));
        assert_eq!(
            said,
            format!("join::page-not-made `{named}` isn't run in the balancer's place"),
            "{lines}"
        );
    };
    check(
        "RUN sed -i s/a/b/ /usr/share/nginx/html/index.html",
        "sed -i s/a/b/ /usr/share/nginx/html/index.html",
    );
    check("WORKDIR /usr/share/nginx/html\nRUN sed -i s/a/b/ index.html", "sed -i s/a/b/ index.html");
    check("ENV H=/var/www/x\nRUN make $H", "make $H");
    check("COPY d /data/site\nRUN gzip -k /data/site/a", "gzip -k /data/site/a");
}

#[test]
fn a_script_that_calls_itself_is_named() {
    let compose = "services: {lb: {image: nginx, ports: ['80:80'], volumes: ['./t:/t'], entrypoint: [sh, /t/entry.sh]}}\n";
    let (_, said) =
        image(&Case::new(&[("compose.yaml", compose), ("t/entry.sh", "sh /t/entry.sh\nnginx\n")]));
    assert_eq!(
        said,
        "join::command-too-long this is followed in part only: its scripts call each other more than 16 deep"
    );
}

#[test]
fn an_entrypoint_of_ones_own_starts_the_command() {
    let compose = "services: {lb: {image: nginx, ports: ['80:80'], volumes: ['./t:/t'], working_dir: /t, \
                   entrypoint: [./entry.sh], command: [nginx, -c, /t/a.conf]}}\n";
    let script = "#!/bin/sh\nset -e\nenvsubst < a.tmpl > /etc/a\nexec \"$@\"\n";
    let (image, said) =
        image(&Case::new(&[("compose.yaml", compose), ("t/entry.sh", script), ("t/a.tmpl", "x")]));
    assert_eq!(said, "");
    assert_eq!(image.invocation.conf_path, Path::new("/t/a.conf"));
    assert_eq!(image.files.text(Path::new("/etc/a")).as_deref(), Some("x"));
}
