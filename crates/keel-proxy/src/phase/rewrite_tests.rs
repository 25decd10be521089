//! What a request becomes, told by the text that a `return` behind the steps gives.

use keel_model::{
    AfterRewrite, DefinedVariable, If, Location, LocationMatcher, OwnArgs, Part, Pattern, PatternEngine,
    Plan, Return, Rewrite, RewriteRule, RewriteStep, Template, Test, Variable, VariableId, VariableSource,
};

use crate::rig::{Rig, location};

fn pattern(source: &str) -> Pattern {
    Pattern { source: source.into(), ignore_case: false, engine: PatternEngine::Linear }
}

/// Reads a text in which `$1`, `$uri`, `$args` and `$x`, the only variable that is defined, stand.
fn template(text: &str) -> Template {
    let mut parts = Vec::new();
    for (at, piece) in text.split('$').enumerate() {
        let (variable, rest) = match at {
            0 => (None, piece),
            _ => {
                let end = piece.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(piece.len());
                let (name, rest) = piece.split_at(end);
                let variable = match name {
                    "1" => Variable::Capture(1),
                    "uri" => Variable::Uri,
                    "args" => Variable::Args,
                    "x" => Variable::Defined(VariableId(0)),
                    name => panic!("${name} isn't known here"),
                };
                (Some(variable), rest)
            }
        };
        parts.extend(variable.map(Part::Variable));
        parts.extend(Some(rest).filter(|rest| !rest.is_empty()).map(|rest| Part::Literal(rest.into())));
    }
    Template { parts }
}

fn rule(expression: &str, replacement: &str, then: AfterRewrite) -> RewriteStep {
    let (text, own_args) = match replacement.strip_suffix('?') {
        Some(text) => (text, OwnArgs::Drop),
        None => (replacement, OwnArgs::Append),
    };
    let (text, args) = match then {
        AfterRewrite::Redirect(_) => (text, None),
        _ => text.split_once('?').map_or((text, None), |(uri, args)| (uri, Some(template(args)))),
    };
    RewriteStep::Rewrite(RewriteRule {
        pattern: pattern(expression),
        written: expression.into(),
        replacement: template(text),
        args,
        own_args,
        then,
    })
}

fn set(value: &str) -> RewriteStep {
    RewriteStep::Set { variable: Variable::Defined(VariableId(0)), value: template(value) }
}

fn returning(text: &str) -> RewriteStep {
    RewriteStep::Return(Return { status: 200, text: Some(template(text)) })
}

fn when(test: Test, steps: Vec<RewriteStep>) -> RewriteStep {
    RewriteStep::If(Box::new(If { test, wants: true, steps, scope: None }))
}

fn place(prefix: &str, steps: Vec<RewriteStep>) -> Location {
    Location { rewrite: Rewrite { steps }, ..location(prefix) }
}

fn rig(locations: Vec<Location>) -> Rig {
    Rig::new(|plan: &mut Plan| {
        plan.variables.push(DefinedVariable { name: "x".into(), source: VariableSource::Set });
        plan.servers[0].locations.extend(locations);
    })
}

fn get(rig: &Rig, path: &str) -> String {
    rig.request(&format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n"))
}

/// Checks the body that a path is answered with.
#[track_caller]
fn check(rig: &Rig, path: &str, expect: &str) {
    let got = get(rig, path);
    let body = got.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    assert_eq!(body, expect, "{path}: {got}");
}

#[test]
fn the_location_is_looked_for_anew_or_stays() {
    use AfterRewrite::{Break, Last, Next};
    let rig = rig(vec![
        place("/last/", vec![rule("^/last/(.*)", "/end/$1", Last), returning("not reached")]),
        place("/next/", vec![rule("^/next/(.*)", "/end/$1", Next), set("set $1")]),
        place("/stop/", vec![rule("^/stop/(.*)", "/end/$1", Next), RewriteStep::Break, returning("no")]),
        place("/break/", vec![rule("^/break/(.*)", "/end/$1", Break), returning("not reached")]),
        place("/none/", vec![rule("^/other", "/end/", Last), returning("here $uri")]),
        place("/end/", vec![returning("$uri?$args $x")]),
    ]);
    check(&rig, "/last/a?b", "/end/a?b ");
    check(&rig, "/next/a", "/end/a? set a");
    check(&rig, "/none/a", "here /none/a");
    for path in ["/stop/a", "/break/a"] {
        // No file is there; the location's steps have ended.
        assert!(get(&rig, path).starts_with("HTTP/1.1 404 "), "{path}");
    }
}

#[test]
fn the_query_is_appended_unless_it_is_dropped() {
    let last = AfterRewrite::Last;
    let rig = rig(vec![
        place("/plain", vec![rule("^", "/end", last)]),
        place("/more", vec![rule("^/more/(.*)", "/end?a=$1", last)]),
        place("/drop", vec![rule("^", "/end?a=$args?", last)]),
        place("/bare", vec![rule("^", "/end?", last)]),
        place("/end", vec![returning("$uri?$args")]),
    ]);
    check(&rig, "/plain?q=1", "/end?q=1");
    check(&rig, "/more/x?q=1", "/end?a=x&q=1");
    check(&rig, "/more/x", "/end?a=x");
    // What had been escaped is escaped in a query again.
    check(&rig, "/more/x%26y%20+?q=1", "/end?a=x%26y%20%2B&q=1");
    check(&rig, "/drop?q=1", "/end?a=q=1");
    check(&rig, "/bare?q=1", "/end?");
}

#[test]
fn clients_are_sent_to_urls() {
    let moved = |status| AfterRewrite::Redirect(status);
    let rig = rig(vec![
        place("/path/", vec![rule("^/path/(.*)", "/new/$1", moved(301))]),
        place("/url/", vec![rule("^/url/(.*)", "http://o/$1?a=b", moved(302))]),
    ]);
    let location = |path: &str, status: u16, expect: &str| {
        let got = get(&rig, path);
        let line = format!("\r\nLocation: {expect}\r\n");
        assert!(got.starts_with(&format!("HTTP/1.1 {status} ")) && got.contains(&line), "{path}: {got}");
    };
    location("/path/x?q", 301, "http://h/new/x?q");
    location("/path/x%20y%2fz", 301, "http://h/new/x%20y/z");
    location("/url/x?q", 302, "http://o/x?a=b&q");
}

#[test]
fn a_cycle_ends_with_500_after_ten_rounds() {
    let rig = rig(vec![place("/a", vec![rule("^/a(.*)", "/ax$1", AfterRewrite::Last)])]);
    assert!(get(&rig, "/a").starts_with("HTTP/1.1 500 "));
    let ten = format!("^/b(x{{0,{}}})$", 9);
    let rig = self::rig(vec![place("/b", vec![rule(&ten, "/bx$1", AfterRewrite::Last), returning("$uri")])]);
    check(&rig, "/b", "/bxxxxxxxxxx");
}

#[test]
fn conditions_lead_into_their_blocks() {
    let x = || Variable::Defined(VariableId(0));
    let matches = |expression: &str| Test::Matches {
        variable: Variable::Uri,
        pattern: pattern(expression),
        written: expression.into(),
    };
    let file = |test, path: &str| Test::File(test, template(path));
    let rig = rig(vec![place(
        "/",
        vec![
            set("$args"),
            when(Test::Holds(x()), vec![returning("holds")]),
            when(Test::Equals(Variable::Uri, template("/same")), vec![returning("equals")]),
            when(matches("^/m(.)"), vec![returning("matches $1")]),
            when(file(keel_model::FileTest::Folder, "$uri"), vec![returning("folder")]),
            when(file(keel_model::FileTest::Executable, "$uri"), vec![returning("executable")]),
            returning("none"),
        ],
    )]);
    check(&rig, "/a?1", "holds");
    check(&rig, "/a?0", "none");
    check(&rig, "/a", "none");
    check(&rig, "/same", "equals");
    check(&rig, "/mx", "matches x");
    check(&rig, "/usr", "folder");
    check(&rig, "/bin/sh", "executable");
}

#[test]
fn an_if_takes_the_place_of_its_location() {
    let rig = rig(vec![{
        let mut place = place("/", Vec::new());
        let mut scope = place.scope.clone();
        scope.core.default_type = "text/inside".into();
        place.rewrite.steps = vec![
            RewriteStep::If(Box::new(If {
                test: Test::Holds(Variable::Args),
                wants: true,
                steps: Vec::new(),
                scope: Some(Box::new(scope)),
            })),
            returning("x"),
        ];
        place
    }]);
    assert!(get(&rig, "/a?b").contains("\r\nContent-Type: text/inside\r\n"));
    assert!(get(&rig, "/a").contains("\r\nContent-Type: text/plain\r\n"));
}

#[test]
fn what_the_server_rewrites_is_found_among_the_locations() {
    let rig = Rig::new(|plan: &mut Plan| {
        plan.variables.push(DefinedVariable { name: "x".into(), source: VariableSource::Set });
        let mut inside = place("/in", vec![returning("$uri $x")]);
        inside.scope.core.internal = true;
        plan.servers[0].rewrite.steps =
            vec![set("server"), rule("^/out(.*)", "/in$1", AfterRewrite::Break), set("not reached")];
        plan.servers[0]
            .locations
            .extend([inside, Location { matcher: LocationMatcher::Named("@n".into()), ..location("") }]);
    });
    check(&rig, "/out/a", "/in/a server");
    // The location is for requests from within alone, and no location takes the other.
    assert!(get(&rig, "/in/a").starts_with("HTTP/1.1 404 "));
    assert!(get(&rig, "/else").starts_with("HTTP/1.1 404 "));
}
