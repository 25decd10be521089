//! What files of nginx do here, as nginx 1.31.5 does it: paths, texts and what `-t` refuses.

use std::{
    net::SocketAddr,
    process::Output,
    time::{Duration, Instant},
};

use keel_testkit::{Binary, Client, Response, Running, free_port};
use rustix::process::Signal;
use tempfile::TempDir;

type Outcome = anyhow::Result<()>;

struct Setup {
    balancer: Running,
    address: SocketAddr,
}

/// Serves with these directives in `server`.
fn serve(server: &str) -> anyhow::Result<Setup> {
    let port = free_port()?;
    let balancer = Binary::new(env!("CARGO_BIN_EXE_evenkeel")).serve(&format!(
        "events {{}}\nhttp {{ access_log off;\n\
         types {{ text/html html; text/plain txt; application/json json; }}\n\
         default_type application/octet-stream;\n\
         server {{ listen 127.0.0.1:{port};\n{server}\n}} }}\n"
    ))?;
    Ok(Setup { balancer, address: ([127, 0, 0, 1], port).into() })
}

impl Setup {
    /// Makes the files that the tests look for, below `html` in the prefix.
    fn with_files(self) -> anyhow::Result<Self> {
        let html = self.balancer.folder().join("html");
        for folder in ["sub/deep", "empty", "page.html.d", "folder-index/index.html"] {
            std::fs::create_dir_all(html.join(folder))?;
        }
        for (file, text) in [
            ("index.html", "root"),
            ("sub/index.html", "sub"),
            ("sub/page.html", "page"),
            ("file.html", "file"),
            ("index.php", "php"),
        ] {
            std::fs::write(html.join(file), text)?;
        }
        Ok(self)
    }

    fn ask(&self, method: &str, path: &str, fields: &str) -> anyhow::Result<Response> {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: test\r\n{fields}\r\n");
        let mut client = Client::connect(self.address)?;
        if method == "HEAD" {
            client.send(request)?;
            return client.response_without_body();
        }
        client.request(request)
    }

    /// Compares status and body with what nginx answers.
    fn check(&self, path: &str, status: u16, body: &str) -> Outcome {
        let response = self.ask("GET", path, "")?;
        assert_eq!((response.status, response.text().as_str()), (status, body), "for {path}");
        Ok(())
    }

    /// Compares where a redirect leads, below the server's own address.
    fn check_redirect(&self, path: &str, to: &str) -> Outcome {
        let response = self.ask("GET", path, "")?;
        let to = format!("http://test:{}{to}", self.address.port());
        assert_eq!((response.status, response.field("Location")), (301, Some(to.as_str())), "for {path}");
        Ok(())
    }
}

#[test]
fn try_files_looks_for_folders_where_the_argument_says_so() -> Outcome {
    let setup =
        serve("location / { try_files $uri $uri/ @app; } location @app { return 200 \"app $uri\"; }")?;
    let setup = setup.with_files()?;
    setup.check("/", 200, "root")?;
    setup.check("/sub/", 200, "sub")?;
    setup.check("/file.html", 200, "file")?;
    setup.check("/none/", 200, "app /none/")?;
    setup.check("/file.html/", 200, "app /file.html/")?;
    setup.check_redirect("/sub", "/sub/")?;
    setup.check_redirect("/sub?a=b", "/sub/?a=b")?;
    setup.check_redirect("/folder-index/", "/folder-index/index.html/")?;
    assert_eq!(setup.ask("GET", "/empty/", "")?.status, 403);
    Ok(())
}

#[test]
fn try_files_without_a_written_slash_never_takes_a_folder() -> Outcome {
    let setup = serve("location / { try_files $uri @app; } location @app { return 200 \"app $uri\"; }")?;
    let setup = setup.with_files()?;
    for path in ["/", "/sub/", "/sub", "/empty/", "/none"] {
        setup.check(path, 200, &format!("app {path}"))?;
    }
    setup.check("/sub/page.html", 200, "page")
}

#[test]
fn try_files_goes_where_its_last_argument_says() -> Outcome {
    let setup = serve(
        "location /spa/ { try_files $uri $uri/ /index.html; }\n\
         location /php/ { try_files $uri $uri/ /index.php?$args; }\n\
         location ~ \\.php$ { return 200 \"php $uri $args\"; }\n\
         location /status/ { try_files $uri =405; }\n\
         location /closed/ { try_files $uri =444; }\n\
         location /folder/ { try_files /sub/ =404; }\n\
         location /empty/ { try_files $arg_none =404; }",
    )?
    .with_files()?;
    setup.check("/spa/", 200, "root")?;
    setup.check("/php/a?b=c", 200, "php /index.php b=c")?;
    setup.check("/folder/x", 301, &setup.ask("GET", "/folder/x", "")?.text())?;
    assert_eq!(setup.ask("GET", "/status/", "")?.status, 405);
    assert_eq!(setup.ask("GET", "/empty/", "")?.status, 404);
    let mut client = Client::connect(setup.address)?;
    client.send("GET /closed/ HTTP/1.1\r\nHost: test\r\n\r\n")?;
    assert_eq!(client.rest()?, b"");
    Ok(())
}

#[test]
fn try_files_stays_below_an_alias() -> Outcome {
    let setup = serve(
        "location /al/ { alias html/sub/; try_files $uri $uri/ /al/page.html; }\n\
         location /fixed/ { alias html/sub/; try_files page.html =404; }\n\
         location ~ ^/re/(.*)$ { alias html/; try_files $1 sub/$1 =404; }\n\
         location ~ ^/number/(\\d+)$ { alias html/sub/page.html; }",
    )?
    .with_files()?;
    setup.check("/al/", 200, "sub")?;
    setup.check("/al/page.html", 200, "page")?;
    setup.check("/al/none", 200, "page")?;
    setup.check("/fixed/x", 200, "page")?;
    setup.check("/re/file.html", 200, "file")?;
    setup.check("/re/page.html", 200, "page")?;
    assert_eq!(setup.ask("GET", "/re/sub", "")?.status, 404);
    // The ending of the URI gives the type, not that of the file.
    let number = setup.ask("GET", "/number/7", "")?;
    assert_eq!(number.field("Content-Type"), Some("application/octet-stream"));
    Ok(())
}

#[test]
fn return_has_the_media_type_of_the_uri() -> Outcome {
    let setup = serve(
        "location / { return 200 \"text\"; }\n\
         location /empty { return 200; }\n\
         location /none/ { types { } default_type \"\"; return 200 x; }\n\
         location /error { return 404 '{}'; }",
    )?;
    for (path, expect) in [
        ("/robots.txt", Some("text/plain")),
        ("/health.JSON", Some("application/json")),
        ("/a/b.html?c=d.txt", Some("text/html")),
        ("/a.html/b", Some("application/octet-stream")),
        ("/.json", Some("application/octet-stream")),
        ("/", Some("application/octet-stream")),
        ("/empty.txt", Some("text/plain")),
        ("/none/a.txt", None),
        ("/error.json", Some("application/json")),
    ] {
        assert_eq!(setup.ask("GET", path, "")?.field("Content-Type"), expect, "for {path}");
    }
    assert_eq!(setup.ask("HEAD", "/robots.txt", "")?.field("Content-Type"), Some("text/plain"));
    Ok(())
}

#[test]
fn return_sends_what_nginx_sends_for_each_status() -> Outcome {
    let statuses = [2, 200, 204, 299, 301, 304, 308, 309, 400, 401, 404, 418, 444, 451, 495, 498, 499, 503];
    let locations: String = statuses
        .iter()
        .map(|status| {
            format!("location = /{status}.txt {{ return {status}; }}\n")
                + &format!("location = /{status}e.txt {{ return {status} \"\"; }}\n")
                + &format!("location = /{status}t.txt {{ return {status} \"text $status\"; }}\n")
        })
        .collect();
    let setup = serve(&locations)?;
    let mut lines = String::new();
    for status in statuses {
        for kind in ["", "e", "t"] {
            let mut client = Client::connect(setup.address)?;
            client.send(format!(
                "GET /{status}{kind}.txt HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
            ))?;
            let answer = String::from_utf8_lossy(&client.rest()?).into_owned();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
            let line = head.lines().next().unwrap_or("closed");
            let mut fields: Vec<&str> =
                head.lines().skip(1).filter(|line| !is_of_every_answer(line)).collect();
            fields.sort_unstable();
            let body = body.split("</title>").next().unwrap_or_default().replace("\r\n", "");
            let line = format!("{status}{kind}: {line} | {} | {body}", fields.join(", "));
            lines += line.trim_end();
            lines += "\n";
        }
    }
    let expect = include_str!("support/return.txt").lines().filter(|line| !line.starts_with('#'));
    for (line, expect) in lines.lines().zip(expect.clone()) {
        assert_eq!(line, expect);
    }
    assert_eq!(lines.lines().count(), expect.count());
    Ok(())
}

fn is_of_every_answer(line: &str) -> bool {
    ["Server:", "Date:", "Connection:"].iter().any(|name| line.starts_with(name))
}

#[test]
fn return_heeds_conditions_that_need_no_validator() -> Outcome {
    let setup = serve("return 200 \"text\";")?;
    assert_eq!(setup.ask("GET", "/", "If-None-Match: *\r\n")?.status, 304);
    assert_eq!(setup.ask("GET", "/", "If-None-Match: \"x\"\r\n")?.status, 200);
    assert_eq!(setup.ask("GET", "/", "If-Match: \"x\"\r\n")?.status, 412);
    let date = "If-Modified-Since: Tue, 14 Nov 2023 22:13:20 GMT\r\n";
    assert_eq!(setup.ask("GET", "/", date)?.status, 200);
    Ok(())
}

#[test]
fn old_browsers_are_answered_as_nginx_answers_them() -> Outcome {
    let setup = serve(
        "location / { return 200 x; }\n\
         location /safari/ { keepalive_disable safari; return 200 x; }\n\
         location /none/ { keepalive_disable none; return 200 x; }\n\
         location /error/ { return 404; }\n\
         location /short/ { msie_padding off; return 404; }",
    )?;
    let msie = "User-Agent: Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1)\r\n";
    let safari = "User-Agent: Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15) Version/15.0 Safari/605.1\r\n";
    let chrome = "User-Agent: Mozilla/5.0 (X11) Chrome/99.0 Safari/537.36\r\n";
    for (method, path, browser, expect) in [
        ("GET", "/", msie, "keep-alive"),
        ("POST", "/", msie, "close"),
        ("POST", "/", chrome, "keep-alive"),
        ("POST", "/none/", msie, "keep-alive"),
        ("POST", "/", safari, "keep-alive"),
        ("GET", "/safari/", safari, "close"),
        ("GET", "/safari/", chrome, "keep-alive"),
    ] {
        let fields = format!("{browser}Content-Length: 0\r\n");
        let response = setup.ask(method, path, &fields)?;
        assert_eq!(response.field("Connection"), Some(expect), "{method} {path} {browser}");
    }
    for (path, browser, length) in
        [("/error/", "", 153), ("/error/", chrome, 555), ("/error/", msie, 555), ("/short/", chrome, 153)]
    {
        assert_eq!(setup.ask("GET", path, browser)?.text().len(), length, "{path} {browser}");
    }
    Ok(())
}

#[test]
fn an_idle_connection_outlives_its_worker_for_keepalive_min_timeout() -> Outcome {
    let setup = serve("keepalive_min_timeout 2s; return 200 x;")?;
    let mut client = Client::connect(setup.address)?;
    client.request("GET / HTTP/1.1\r\nHost: test\r\n\r\n")?;
    let answered = Instant::now();
    setup.balancer.signal(Signal::QUIT)?;
    assert_eq!(client.rest()?, b"");
    let kept = answered.elapsed();
    // Times are counted in milliseconds, and began a moment before the answer was here.
    assert!(kept > Duration::from_millis(1900), "closed after {kept:?}");
    Ok(())
}

/// Runs `serve` with these words in a folder of its own that has this nginx.conf, in which `PREFIX` stands for it.
fn test_configuration(folder: &TempDir, text: &str, words: &[&str]) -> anyhow::Result<Output> {
    let prefix = folder.path().to_string_lossy();
    std::fs::write(folder.path().join("nginx.conf"), text.replace("PREFIX", &prefix))?;
    let mut command = Binary::new(env!("CARGO_BIN_EXE_evenkeel")).command();
    command.arg("serve").args(words).args(["-c", "nginx.conf"]).current_dir(folder.path());
    Ok(command.output()?)
}

/// Checks that `-t` refuses a configuration with these words of nginx.
fn check_refused(text: &str, expect: &str) -> Outcome {
    let folder = TempDir::new()?;
    let output = test_configuration(&folder, text, &["-t"])?;
    let said = String::from_utf8_lossy(&output.stderr).replace(&*folder.path().to_string_lossy(), "PREFIX");
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("nginx: [emerg] {expect}\n")), "for {text}: {said}");
    assert!(said.ends_with("nginx.conf test failed\n"), "{said}");
    Ok(())
}

#[test]
fn a_test_opens_the_files_that_serving_needs() -> Outcome {
    let missing = "failed (2: No such file or directory)";
    check_refused(
        "events {} http { access_log PREFIX/none/a.log; server { listen 127.0.0.1:1; } }",
        &format!("open() \"PREFIX/none/a.log\" {missing}"),
    )?;
    // Whether a server writes to it or not.
    check_refused(
        "events {} http { access_log none/h; server { listen 127.0.0.1:1; access_log off; } }",
        &format!("open() \"PREFIX/none/h\" {missing}"),
    )?;
    check_refused("events {} error_log none/e.log;", &format!("open() \"PREFIX/none/e.log\" {missing}"))?;
    check_refused("events {} pid none/pid;", &format!("open() \"PREFIX/none/pid\" {missing}"))?;
    check_refused(
        "events {} error_log e.log; http { server { listen 127.0.0.1:1; location / { access_log none/l; } } }",
        &format!("open() \"PREFIX/none/l\" {missing}"),
    )?;
    check_refused(
        "events {} http { access_log off; client_body_temp_path /dev/null/b; server { listen 127.0.0.1:1; } }",
        "mkdir() \"/dev/null/b\" failed (20: Not a directory)",
    )
}

#[test]
fn a_test_tries_the_addresses() -> Outcome {
    let foreign = std::fs::read_to_string("/proc/sys/net/ipv4/ip_nonlocal_bind")?;
    if foreign.trim() != "0" {
        keel_testkit::not_run("this host lets sockets have addresses of others (net.ipv4.ip_nonlocal_bind)");
        return Ok(());
    }
    check_refused(
        "events {} http { access_log off; server { listen 192.0.2.1:8080; } }",
        "bind() to 192.0.2.1:8080 failed (99: Cannot assign requested address)",
    )
}

#[test]
fn a_test_makes_the_files_that_nginx_makes() -> Outcome {
    let folder = TempDir::new()?;
    let text =
        "pid p.pid; error_log e.log; events {} http { access_log a.log; server { listen 127.0.0.1:1; } }";
    let output = test_configuration(&folder, text, &["-t"])?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut names: Vec<_> = std::fs::read_dir(folder.path())?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<anyhow::Result<_>>()?;
    names.sort();
    assert_eq!(names, ["a.log", "client_body_temp", "e.log", "nginx.conf", "p.pid", "proxy_temp"]);
    Ok(())
}

#[test]
fn a_fresh_folder_needs_no_logs_folder() -> Outcome {
    let folder = TempDir::new()?;
    let text = format!("events {{}} http {{ server {{ listen 127.0.0.1:{}; }} }}", free_port()?);
    let output = test_configuration(&folder, &text, &["-t"])?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!folder.path().join("logs").exists(), "a test makes no folder for logs");
    // In the background, which is where the default leads.
    let output = test_configuration(&folder, &text, &[])?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("error log"), "{said}");
    for name in ["nginx.pid", "error.log", "access.log"] {
        assert!(folder.path().join("logs").join(name).exists(), "{name} is there");
    }
    let output = test_configuration(&folder, &text, &["-s", "stop"])?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    keel_testkit::wait_until("the pid file is gone", || !folder.path().join("logs/nginx.pid").exists())
}

#[test]
fn the_version_names_the_modules_that_are_absent() -> Outcome {
    let output = Binary::new(env!("CARGO_BIN_EXE_evenkeel")).command().args(["serve", "-V"]).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    for (module, is_absent) in [
        ("http_upstream_random", false),
        ("http_upstream_least_conn", false),
        ("http_proxy", false),
        ("http_map", false),
        ("http_gzip", false),
        ("http_ssi", true),
    ] {
        assert_eq!(said.contains(&format!("--without-{module}_module")), is_absent, "{module}: {said}");
    }
    Ok(())
}
