//! `X-Accel-Redirect`: the response that stands for a peer's.

mod support;

use keel_model::*;
use support::{DataPlane, ScriptedPeer, balance, proxy_location};

/// A peer that answers with what describes a file and with the place of that: the request's query.
fn sending() -> ScriptedPeer {
    ScriptedPeer::start(|request| {
        let target = request.head.split(' ').nth(1)?.split_once('?')?.1.to_owned();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nX-Accel-Redirect: {target}\r\nContent-Type: application/x-peer\r\n\
             Content-Disposition: attachment\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nCache-Control: private\r\n\
             X-Peer: 1\r\nContent-Length: 0\r\n\r\n"
        );
        Some(answer.into_bytes())
    })
}

fn files(prefix: &str, root: &std::path::Path) -> Location {
    let mut location = proxy_location(prefix, "u");
    location.scope.content = Content::Static;
    location.scope.core.root = Root::Root(Template::literal(root.to_string_lossy()));
    location.scope.core.internal = true;
    location
}

#[test]
fn the_file_has_the_fields_that_describe_it_and_stays_in_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["files", "inner"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    for name in ["files/a.txt", "files/b?c.txt", "inner/secret"] {
        std::fs::write(folder.path().join(name), name).unwrap();
    }
    let peer = sending();
    let plane = DataPlane::start(|plan| {
        balance(plan, &[peer.address]);
        plan.servers[0].locations.push(files("/files", folder.path()));
        plan.servers[0].locations.push(files("/inner", folder.path()));
    });
    let mut client = plane.client();
    let response = client.get("/?/files/a.txt");
    assert_eq!((response.status, response.text()), (200, "files/a.txt"));
    let described = ["content-type", "content-disposition", "cache-control", "x-peer"];
    let expect = [Some("application/x-peer"), Some("attachment"), Some("private"), None];
    assert_eq!(described.map(|name| response.field(name)), expect);
    let cookies: Vec<&str> = response.head.lines().filter(|line| line.starts_with("Set-Cookie")).collect();
    assert_eq!(cookies, ["Set-Cookie: a=1", "Set-Cookie: b=2"]);
    // An escaped `?` is the path's.
    assert_eq!(client.get("/?/files/b%3Fc.txt").text(), "files/b?c.txt");
    for outside in ["/files/../inner/secret", "/files/%2e%2e/inner/secret", "/files/..%2finner/secret"] {
        assert_eq!(client.get(&format!("/?{outside}")).status, 404, "{outside}");
    }
}
