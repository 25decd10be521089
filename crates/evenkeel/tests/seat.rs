//! What nginx's container would be is followed: the public port answers, or the command says why with status 1.

use std::{
    io::{Read, Write},
    os::unix::net::UnixListener,
    path::Path,
};

use keel_testkit::{Binary, Project, free_port};

type Done = anyhow::Result<()>;

/// Which port of this host stands for `@0@` and `@1@` in a file.
struct Ports([u16; 2]);

impl Ports {
    fn free() -> anyhow::Result<Self> {
        Ok(Self([free_port()?, free_port()?]))
    }

    /// Makes a project whose service `app` is the demo app, with these services and files.
    fn project(&self, services: &str, files: &[(&str, &str)]) -> anyhow::Result<Project> {
        let app = keel_testkit::demo_app(Path::new(env!("CARGO_BIN_EXE_evenkeel")))?;
        let compose =
            format!("services:\n  app:\n    image: none\n    x-process: {{command: {app}}}\n{services}");
        let compose = compose.replace("@0@", &self.0[0].to_string()).replace("@1@", &self.0[1].to_string());
        let project =
            Project::new(Binary::new(env!("CARGO_BIN_EXE_evenkeel")), &[("compose.yaml", &compose)])?;
        for (name, text) in files {
            project.write(name, text)?;
        }
        Ok(project)
    }

    fn body(&self, at: usize, path: &str) -> anyhow::Result<String> {
        let port = self.0[at];
        Ok(String::from_utf8_lossy(&keel_testkit::get(([127, 0, 0, 1], port), path)?.body).into_owned())
    }
}

/// Brings a project up that must have nothing to complain of, and asks its public port.
#[track_caller]
fn check(services: &str, files: &[(&str, &str)], path: &str, expect: &str) -> Done {
    let ports = Ports::free()?;
    let project = ports.project(services, files)?;
    project.run(&["up", "-d"])?;
    let body = ports.body(0, path)?;
    assert!(body.contains(expect), "{services}: {body}");
    Ok(())
}

const TO_APP: &str = "server { listen 80; location / { proxy_pass http://app:5000; } }\n";
const HELLO: &str = "Hello from";

#[test]
fn templates_are_rendered_as_the_image_does() -> Done {
    let template = "server { listen ${NGINX_PORT}; location / { proxy_pass http://$UP; proxy_set_header Host $host; } }\n";
    check(
        "  nginx:\n    image: nginx\n    ports: ['127.0.0.1:@0@:80']\n    environment: {NGINX_PORT: '80', UP: 'app:5000'}\n    \
         volumes: ['./templates:/etc/nginx/templates:ro']\n",
        &[("templates/default.conf.template", template)],
        "/",
        HELLO,
    )?;
    check(
        "  nginx:\n    image: nginx\n    ports: ['127.0.0.1:@0@:80']\n    environment: {UP: 'app:5000', MY_PORT: '80', \
         NGINX_ENVSUBST_TEMPLATE_DIR: /t, NGINX_ENVSUBST_TEMPLATE_SUFFIX: .tpl, NGINX_ENVSUBST_OUTPUT_DIR: /etc/nginx, \
         NGINX_ENVSUBST_FILTER: ^UP$}\n    volumes: ['./t:/t:ro']\n",
        &[(
            "t/nginx.conf.tpl",
            &format!("events {{}}\nhttp {{ {} }}\n", template.replace("${NGINX_PORT}", "80")),
        )],
        "/",
        HELLO,
    )
}

#[test]
fn a_command_that_writes_the_configuration_is_followed() -> Done {
    let template = [("site.tmpl", "server { listen 80; location / { proxy_pass http://$UP; } }\n")];
    check(
        "  nginx:\n    image: nginx\n    ports: ['127.0.0.1:@0@:80']\n    environment: {UP: 'app:5000'}\n    \
         volumes: ['./site.tmpl:/tmp/site.tmpl:ro']\n    \
         command: sh -c \"envsubst '$$UP' < /tmp/site.tmpl > /etc/nginx/conf.d/default.conf && nginx -g 'daemon off;'\"\n",
        &template,
        "/",
        HELLO,
    )?;
    let dockerfile = "FROM nginx\nRUN rm /etc/nginx/conf.d/default.conf\nCOPY site.tmpl /\nCOPY start.sh /\nCMD [\"/start.sh\"]\n";
    let script =
        "#!/bin/sh\nenvsubst < /site.tmpl > /etc/nginx/conf.d/site.conf\nexec nginx -g 'daemon off;'\n";
    check(
        "  nginx:\n    build: ./nginx\n    ports: ['127.0.0.1:@0@:80']\n    environment: {UP: 'app:5000'}\n",
        &[("nginx/Dockerfile", dockerfile), ("nginx/start.sh", script), ("nginx/site.tmpl", template[0].1)],
        "/",
        HELLO,
    )?;
    check(
        "  nginx:\n    image: nginx\n    ports: ['127.0.0.1:@0@:80']\n    volumes: ['./other.conf:/srv/other.conf:ro']\n    \
         entrypoint: nginx-debug\n    command: -c /srv/other.conf -g 'daemon off;'\n",
        &[("other.conf", "events {}\nhttp { server { listen 80; return 200 other; } }\n")],
        "/",
        "other",
    )
}

#[test]
fn what_cannot_be_followed_is_an_error_and_the_rest_runs() -> Done {
    let check = |fields: &str, expect: &str, body: &str| -> Done {
        let ports = Ports::free()?;
        let seat = format!(
            "  nginx:\n    image: nginx\n    ports: ['127.0.0.1:@0@:80', '127.0.0.1:@1@:443']\n    \
             volumes: ['./d.conf:/etc/nginx/conf.d/default.conf']\n    {fields}\n"
        );
        let project = ports.project(&seat, &[("d.conf", TO_APP)])?;
        let output = project.output(&["up", "-d"])?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(expect), "{expect:?} is missing in:\n{said}");
        assert!(ports.body(0, "/")?.contains(body));
        Ok(())
    };
    check("command: /opt/start --now", "`/opt/start --now` isn't run in the balancer's place", HELLO)?;
    let sed = "command: sh -c \"sed -i s/a/b/ /etc/nginx/conf.d/default.conf; nginx -g 'daemon off;'\"";
    check(sed, "`sed -i s/a/b/ /etc/nginx/conf.d/default.conf` isn't run", HELLO)?;
    check("restart: always", "nothing listens on port 443", HELLO)
}

#[test]
fn the_images_own_site_serves_the_folder_that_is_mounted() -> Done {
    let nginx = "  web:\n    image: nginx\n    ports: ['127.0.0.1:@0@:80']\n";
    check(nginx, &[], "/", "Welcome to Evenkeel")?;
    let mounted = format!("{nginx}    volumes: ['./html:/usr/share/nginx/html:ro']\n");
    check(&mounted, &[("html/index.html", "mine")], "/", "mine")?;
    let overlaid = "  web:\n    build: {dockerfile_inline: \"FROM nginx\\nCOPY html /usr/share/nginx/html\"}\n    \
                    ports: ['127.0.0.1:@0@:80']\n    configs: [{source: env, target: /usr/share/nginx/html/env.js}]\n\
                    configs: {env: {content: from-the-file}}\n";
    check(overlaid, &[("html/index.html", "mine")], "/env.js", "from-the-file")?;
    check(overlaid, &[("html/index.html", "mine")], "/", "mine")
}

#[test]
fn names_and_loopback_mean_what_they_mean_in_the_container() -> Done {
    let conf = "server { listen 80; location / { proxy_pass http://backend:5000; } location /i { proxy_pass http://127.0.0.1:8081; } }\n\
                server { listen 8081; location / { proxy_pass http://project-app-1:5000; } }\n";
    let seat = "  nginx:\n    image: nginx\n    ports: ['127.0.0.1:@0@:80']\n    links: ['app:backend']\n    \
                volumes: ['./d.conf:/etc/nginx/conf.d/default.conf']\n";
    let ports = Ports::free()?;
    let project = ports.project(seat, &[])?;
    project.write("d.conf", &conf.replace("project-", &format!("{}-", project.name())))?;
    project.run(&["up", "-d"])?;
    assert!(ports.body(0, "/")?.contains(HELLO) && ports.body(0, "/i")?.contains(HELLO));

    let host = std::net::TcpListener::bind("127.0.0.1:0")?;
    let elsewhere = host.local_addr()?.port();
    let thread = std::thread::spawn(move || {
        let (mut client, _) = host.accept().expect("somebody connects");
        let _ = client.read(&mut [0; 1024]);
        client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhost").expect("it listens");
    });
    let hosts = "  nginx:\n    image: nginx\n    ports: ['127.0.0.1:@0@:80']\n    extra_hosts: ['outside:host-gateway']\n    \
                 volumes: ['./d.conf:/etc/nginx/conf.d/default.conf']\n";
    let conf = format!("server {{ listen 80; location / {{ proxy_pass http://outside:{elsewhere}; }} }}\n");
    check(hosts, &[("d.conf", &conf)], "/", "host")?;
    thread.join().expect("it doesn't panic");
    Ok(())
}

#[test]
fn a_socket_in_a_shared_folder_is_one_for_both_sides() -> Done {
    let ports = Ports::free()?;
    let seat = "  nginx:\n    image: nginx\n    ports: ['127.0.0.1:@0@:80']\n    \
                volumes: ['./run:/run/sock', './d.conf:/etc/nginx/conf.d/default.conf']\n";
    let conf = "upstream app { server unix:/run/sock/app.sock; }\nserver { listen 80; location / { proxy_pass http://app; } }\n";
    let project = ports.project(seat, &[("d.conf", conf), ("run/keep", "")])?;
    let listener = UnixListener::bind(project.folder().join("run/app.sock"))?;
    // The data plane may be another user's.
    std::fs::set_permissions(project.folder(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    std::fs::set_permissions(
        project.folder().join("run/app.sock"),
        std::os::unix::fs::PermissionsExt::from_mode(0o777),
    )?;
    let thread = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("somebody connects");
        let _ = client.read(&mut [0; 1024]);
        client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nunix").expect("it listens");
    });
    project.run(&["up", "-d"])?;
    assert_eq!(ports.body(0, "/")?, "unix");
    thread.join().expect("it doesn't panic");
    Ok(())
}

/// The static site comes first and publishes a port; the other one proxies.
#[test]
fn the_balancer_that_proxies_has_the_seat_and_the_other_is_served_too() -> Done {
    let services = "  front:\n    build: ./front\n    ports: ['127.0.0.1:@0@:80']\n  proxy:\n    image: nginx\n    \
                    ports: ['127.0.0.1:@1@:80']\n    volumes: ['./lb.conf:/etc/nginx/conf.d/default.conf:ro']\n";
    let dockerfile = "FROM node:20 AS build\nWORKDIR /app\nCOPY . .\nRUN npm run build\nFROM nginx:alpine\n\
                      COPY --from=build /app/dist /usr/share/nginx/html\nCOPY site.conf /etc/nginx/conf.d/default.conf\n";
    let map = "map $uri $tail { default x; }\n";
    let site = format!(
        "{map}server {{ listen 80; root /usr/share/nginx/html; location = /map {{ return 200 site-$tail; }} }}\n"
    );
    let proxy = "map $http_upgrade $upgrade { default upgrade; '' close; }\n\
                 server { listen 80; location / { proxy_pass http://app:5000; proxy_set_header Connection $upgrade; }\n\
                 location /front/ { proxy_pass http://front:80/; } }\n";
    let files = [("front/Dockerfile", dockerfile), ("front/site.conf", &site), ("lb.conf", proxy)];
    let ports = Ports::free()?;
    let project = ports.project(services, &files)?;
    project.write("front/dist/index.html", "the front")?;
    project.run(&["up", "-d"])?;
    assert_eq!((ports.body(0, "/")?.as_str(), ports.body(0, "/map")?.as_str()), ("the front", "site-x"));
    assert!(ports.body(1, "/")?.contains(HELLO));
    assert_eq!(ports.body(1, "/front/")?, "the front");
    let list = project.run(&["config", "--format", "json"])?;
    let config: serde_json::Value = serde_json::from_str(&list)?;
    assert_eq!(config["balancer"], "proxy");

    // What a stage would build isn't there: an error, and the other one serves.
    let (ports, files) = (Ports::free()?, &files);
    let project = ports.project(services, files)?;
    let output = project.output(&["up", "-d"])?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("what the stage `build` builds for /usr/share/nginx/html isn't here"), "{said}");
    assert!(ports.body(1, "/")?.contains(HELLO) && !ports.body(0, "/")?.contains("Welcome"));
    Ok(())
}

#[test]
fn a_server_for_http3_alone_is_left_out_and_the_others_serve() -> Done {
    let conf = "server { listen 80; location / { return 301 https://$host$request_uri; } location /app { proxy_pass http://app:5000/; } }\n\
                server { listen 443 quic; listen [::]:443 quic; http3 on;\n\
                location / { proxy_pass http://app:5000; } }\n";
    let seat = "  nginx:\n    image: nginx\n    ports: ['127.0.0.1:@0@:80', '127.0.0.1:@1@:443']\n    \
                volumes: ['./d.conf:/etc/nginx/conf.d/default.conf']\n";
    let ports = Ports::free()?;
    let project = ports.project(seat, &[("d.conf", conf)])?;
    let output = project.output(&["up", "-d"])?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for expect in ["so this server is left out", "published, but its `listen 443` stays closed"] {
        assert!(said.contains(expect), "{expect:?} is missing in:\n{said}");
    }
    assert_eq!(said.matches("HTTP/3 is not there yet; `443` stays closed").count(), 1, "{said}");
    assert!(ports.body(0, "/app")?.contains(HELLO));
    assert!(std::net::TcpStream::connect(("127.0.0.1", ports.0[1])).is_err());
    Ok(())
}

/// What is a link today and a folder tomorrow stays the user's, and what leaves the image isn't served any more.
#[test]
fn a_file_that_leaves_the_image_is_not_served_any_more() -> Done {
    let web = |configs: &str| {
        format!(
            "  web:\n    build: {{dockerfile_inline: \"FROM nginx\\nCOPY html /usr/share/nginx/html\"}}\n    \
             ports: ['127.0.0.1:@0@:80']\n    configs: [{configs}]\n\
             configs: {{one: {{content: one}}, two: {{content: two}}}}\n"
        )
    };
    let config = |name: &str| format!("{{source: {name}, target: /usr/share/nginx/html/{name}}}");
    let (one, two) = (config("one"), config("two"));
    let ports = Ports::free()?;
    let files = [("html/index.html", "mine"), ("html/old", "old"), ("html/sub", "sub")];
    let project = ports.project(&web(&format!("{one}, {two}")), &files)?;
    project.run(&["up", "-d"])?;
    for path in ["/one", "/two", "/old", "/sub"] {
        assert_eq!(ports.body(0, path)?, path.trim_start_matches('/'));
    }
    let compose = std::fs::read_to_string(project.folder().join("compose.yaml"))?;
    project.write("compose.yaml", &compose.replace(&format!(", {two}"), ""))?;
    std::fs::remove_file(project.folder().join("html/old"))?;
    std::fs::remove_file(project.folder().join("html/sub"))?;
    project.write("html/sub/x", "inner")?;
    project.run(&["reload"])?;
    assert_eq!((ports.body(0, "/one")?, ports.body(0, "/sub/x")?), ("one".into(), "inner".into()));
    for path in ["/two", "/old"] {
        let response = keel_testkit::get(([127, 0, 0, 1], ports.0[0]), path)?;
        assert_eq!(response.status, 404, "{path}");
    }
    assert_eq!(std::fs::read_to_string(project.folder().join("html/sub/x"))?, "inner");
    // So does the next start.
    project.run(&["down"])?;
    project.write("compose.yaml", &compose.replace(&format!("{one}, "), ""))?;
    project.run(&["up", "-d"])?;
    assert_eq!(ports.body(0, "/two")?, "two");
    assert_eq!(keel_testkit::get(([127, 0, 0, 1], ports.0[0]), "/one")?.status, 404);
    Ok(())
}

#[test]
fn an_error_in_the_balancers_configuration_gives_its_place_to_no_other() -> Done {
    let services = "  front:\n    image: nginx\n    ports: ['127.0.0.1:@0@:80']\n    \
                    volumes: ['./site:/etc/nginx/site:ro']\n    command: nginx -c /etc/nginx/site/nginx.conf\n  proxy:\n    image: nginx\n    \
                    ports: ['127.0.0.1:@1@:80']\n    volumes: ['./lb.conf:/etc/nginx/conf.d/default.conf:ro']\n";
    let site = "events {}\nhttp { server { listen 80; location / { return 200 site; } } }\n";
    let ports = Ports::free()?;
    let project = ports
        .project(services, &[("site/nginx.conf", site), ("lb.conf", &format!("lisen 80;\n{TO_APP}"))])?;
    let output = project.output(&["up", "-d"])?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("unknown directive `lisen`"), "{said}");
    assert!(std::net::TcpStream::connect(("127.0.0.1", ports.0[0])).is_err());

    // Once it serves, an error that comes into any of them changes nothing.
    project.write("lb.conf", TO_APP)?;
    project.run(&["up", "-d"])?;
    project.write("lb.conf", &format!("lisen 80;\n{TO_APP}"))?;
    assert_eq!(project.output(&["reload"])?.status.code(), Some(1));
    project.write("lb.conf", TO_APP)?;
    project.write("site/nginx.conf", &site.replace("listen", "lisen"))?;
    assert_eq!(project.output(&["reload"])?.status.code(), Some(1));
    assert!(ports.body(1, "/")?.contains(HELLO));
    assert_eq!(ports.body(0, "/")?, "site");
    Ok(())
}

#[test]
fn a_service_found_at_an_address_is_reached_there() -> Done {
    let host = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = host.local_addr()?;
    // Ends with the test's process: who else connects, to see whether it listens, is no matter.
    std::thread::spawn(move || {
        for mut client in host.incoming().flatten() {
            let _ = client.read(&mut [0; 1024]);
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nelsewhere";
            let _ = client.write_all(answer);
        }
    });
    let services = format!(
        "  other:\n    image: none\n    networks: {{default: {{aliases: [second]}}}}\n    x-process: {{address: '{address}'}}\n  \
         nginx:\n    image: nginx\n    ports: ['127.0.0.1:@0@:80']\n    \
         volumes: ['./d.conf:/etc/nginx/conf.d/default.conf']\n"
    );
    let conf = "upstream named { server other:9000; }\nserver { listen 80; location / { proxy_pass http://named; }\n\
                location /alias { proxy_pass http://second:8000; } }\n";
    let ports = Ports::free()?;
    let project = ports.project(&services, &[("d.conf", conf)])?;
    project.run(&["up", "-d"])?;
    assert_eq!((ports.body(0, "/")?.as_str(), ports.body(0, "/alias")?.as_str()), ("elsewhere", "elsewhere"));
    Ok(())
}

/// As root the data plane is another user; nginx in a container would read the files through its mount.
#[test]
fn files_that_the_data_planes_user_cannot_read_are_named() -> Done {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root: files_that_the_data_planes_user_cannot_read_are_named is left out");
        return Ok(());
    }
    let services = "  web:\n    build: {dockerfile_inline: \"FROM nginx\\nCOPY html /usr/share/nginx/html\"}\n    \
                    ports: ['127.0.0.1:@0@:80']\n    configs: [{source: env, target: /usr/share/nginx/html/env.js}]\n\
                    configs: {env: {content: from-the-file}}\n";
    let ports = Ports::free()?;
    let project = ports.project(services, &[("html/index.html", "mine"), ("html/closed.html", "")])?;
    let set = |path: &str, mode| {
        std::fs::set_permissions(
            project.folder().join(path),
            std::os::unix::fs::PermissionsExt::from_mode(mode),
        )
    };
    let status = |path: &str| -> anyhow::Result<u16> {
        Ok(keel_testkit::get(([127, 0, 0, 1], ports.0[0]), path)?.status)
    };
    set("", 0o755)?;
    set("html/closed.html", 0o600)?;
    let output = project.output(&["up", "-d"])?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("warning[join::unreadable]"), "{said}");
    assert!(said.contains("let everybody read it: `chmod o+r"), "{said}");
    assert_eq!((status("/")?, status("/env.js")?, status("/closed.html")?), (200, 200, 403));
    let mut states = std::fs::read_dir(project.folder().join(".state/evenkeel"))?;
    let state = states.next().expect("it has run")?.path();
    keel_testkit::wait_until("the error log says why", || {
        let log = std::fs::read_to_string(state.join("web.error.log")).unwrap_or_default();
        log.contains("(13: Permission denied)")
    })?;
    // A folder on the way.
    set("html", 0o700)?;
    let output = project.output(&["reload"])?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("html is closed to others"), "{said}");
    assert_eq!((status("/")?, status("/env.js")?), (403, 200));
    Ok(())
}

/// In a container these links would lead into its own files.
#[test]
fn a_link_never_leaves_what_is_mounted() -> Done {
    let services = "  web:\n    image: nginx\n    ports: ['127.0.0.1:@0@:80']\n    volumes: ['./site:/srv/site', './more:/srv/more', \
                    './conf.d:/etc/nginx/conf.d', './logs:/srv/logs']\n    configs: [{source: one, target: /srv/site/one}]\n\
                    configs: {one: {content: one}}\n";
    let conf = "server {\n  listen 80;\n  root /srv/site;\n  access_log /srv/logs/link.log;\n  \
                location /more/ { alias /srv/more/; }\n  location /try { try_files /up /abs /in =404; }\n  \
                location /err { error_page 410 /up; return 410; }\n  location /dir/ { index up abs in; }\n  \
                location /root { return 200 $document_root:$realpath_root; }\n}\n";
    let ports = Ports::free()?;
    let files = [
        ("site/in", "inside"),
        ("more/m", "more"),
        ("secret", "secret"),
        ("conf.d/a.conf", conf),
        ("victim", ""),
    ];
    let project = ports.project(services, &files)?;
    let at = |path: &str| project.folder().join(path);
    std::fs::create_dir_all(at("site/dir"))?;
    std::fs::create_dir_all(at("logs"))?;
    let secret = at("secret").display().to_string();
    for (link, target) in [
        ("site/up", "../secret"),
        ("site/abs", secret.as_str()),
        ("site/passwd", "/etc/passwd"),
        ("site/proc", "/proc/self/root/etc/passwd"),
        ("site/folder", ".."),
        ("site/own", "in"),
        ("site/mapped", "/srv/more/m"),
        ("site/text", "one"),
        ("site/dir/up", "../../secret"),
        ("site/dir/in", "../in"),
        ("more/up", "../secret"),
        ("logs/link.log", "../victim"),
    ] {
        std::os::unix::fs::symlink(target, at(link))?;
    }
    project.run(&["up", "-d"])?;
    let answer = |path: &str| -> anyhow::Result<(u16, String)> {
        let response = keel_testkit::get(([127, 0, 0, 1], ports.0[0]), path)?;
        Ok((response.status, String::from_utf8_lossy(&response.body).into_owned()))
    };
    for (path, body) in [
        ("/in", "inside"),
        ("/own", "inside"),
        ("/mapped", "more"),
        ("/text", "one"),
        ("/try", "inside"),
        ("/dir/", "inside"),
        ("/more/m", "more"),
        ("/root", "/srv/site:/srv/site"),
    ] {
        assert_eq!(answer(path)?, (200, body.to_owned()), "{path}");
    }
    for path in ["/up", "/abs", "/passwd", "/proc", "/folder/secret", "/dir/up", "/more/up", "/err"] {
        let (status, body) = answer(path)?;
        assert!(
            matches!(status, 404 | 410) && !body.contains("secret") && !body.contains("root:"),
            "{path}: {body}"
        );
    }
    assert_eq!(std::fs::read_to_string(at("victim"))?, "");
    // One that comes while it serves.
    std::fs::remove_file(at("more/m"))?;
    std::os::unix::fs::symlink("../secret", at("more/m"))?;
    assert_eq!(answer("/more/m")?.0, 404);
    // An included file that isn't there is an error; what is served stays.
    std::os::unix::fs::symlink("../secret", at("conf.d/b.conf"))?;
    let output = project.output(&["reload"])?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("b.conf") && !said.contains("unknown directive"),
        "{said}"
    );
    assert_eq!(answer("/text")?, (200, "one".into()));
    Ok(())
}

/// Without a service of nginx the paths are this host's, and what they name is all that is served.
#[test]
fn a_loose_configuration_serves_the_folders_that_it_names() -> Done {
    let ports = Ports::free()?;
    let project = ports.project("", &[("secret", "secret"), ("www/in", "inside")])?;
    let www = project.folder().join("www");
    std::os::unix::fs::symlink("../secret", www.join("up"))?;
    let conf = format!(
        "events {{}}\nhttp {{ server {{ listen 127.0.0.1:{}; root {}; location /app {{ proxy_pass http://app:5000; }} }} }}\n",
        ports.0[0],
        www.display()
    );
    project.write("nginx.conf", &conf)?;
    project.run(&["up", "-d"])?;
    assert_eq!(ports.body(0, "/in")?, "inside");
    assert_eq!(keel_testkit::get(([127, 0, 0, 1], ports.0[0]), "/up")?.status, 404);
    Ok(())
}
