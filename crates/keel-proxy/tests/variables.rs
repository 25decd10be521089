//! Values of variables, as responses show them.

mod support;

use keel_model::*;
use support::{DataPlane, unlogged};

fn map(source: Template, regexes: Vec<(Pattern, Template)>, default: &str) -> VariableSource {
    VariableSource::Map(Map {
        source,
        hostnames: false,
        volatile: false,
        entries: Vec::new(),
        regexes,
        default: Template::literal(default),
    })
}

fn pattern(source: &str) -> Pattern {
    Pattern { source: source.into(), ignore_case: false, engine: PatternEngine::Linear }
}

fn saying(matcher: LocationMatcher, variables: &[Variable]) -> Location {
    let texts = std::iter::repeat_with(|| Part::Literal("/".into()));
    let parts = variables.iter().cloned().map(Part::Variable).zip(texts);
    let text = Template { parts: parts.flat_map(|(variable, text)| [variable, text]).collect() };
    Location {
        matcher,
        scope: unlogged(),
        rewrite: Return { status: 200, text: Some(text) }.into(),
        locations: Vec::new(),
    }
}

#[test]
fn variables_of_the_configuration_have_a_slot_in_each_request() {
    let defined = |id| Variable::Defined(VariableId(id));
    let plane = DataPlane::start(|plan| {
        let first = (pattern(r"^(?P<digit>\d)"), Template::variable(defined(1)));
        let sources = [
            ("id", VariableSource::Written),
            ("digit", VariableSource::Written),
            ("first", map(Template::variable(defined(0)), vec![first], "none")),
            ("both", map(Template::default(), Vec::new(), "map")),
        ];
        plan.variables =
            sources.map(|(name, source)| DefinedVariable { name: name.into(), source }).into_iter().collect();
        let all = [defined(0), defined(2), defined(1), defined(3), defined(2)];
        plan.servers[0].locations = vec![
            saying(LocationMatcher::Regex(pattern(r"^/(?P<id>\w+)$")), &all),
            saying(LocationMatcher::Regex(pattern(r"^/(?P<id>\w+)/(?P<both>\w+)$")), &all),
            saying(LocationMatcher::Prefix("/".into()), &all),
        ];
    });
    // One connection: what a request leaves in its slots isn't there for the next.
    let mut client = plane.client();
    for (path, text) in [
        // As in nginx a map leaves the groups of its expression behind.
        ("/42", "42/4/4/map/4/"),
        ("/", "/none//map/none/"),
        ("/7/group", "7/7/7/group/7/"),
        ("/x", "x/none//map/none/"),
    ] {
        assert_eq!(client.get(path).text(), text, "{path}");
    }
}

#[test]
fn internet_explorer_is_named() {
    let plane = DataPlane::start(|plan| {
        plan.servers[0].locations = vec![saying(LocationMatcher::Prefix("/".into()), &[Variable::Msie])];
    });
    let mut client = plane.client();
    for (agent, text) in [
        ("Mozilla/5.0 (compatible; MSIE 10.0; Windows NT 6.2)", "1/"),
        ("Mozilla/4.0 (compatible; MSIE 5.5; Windows 98)", "1/"),
        ("Mozilla/4.0 (compatible; MSIE 6.0; X11) Opera 7.54", "/"),
        ("curl/8.0", "/"),
    ] {
        client.send(format!("GET / HTTP/1.1\r\nHost: h\r\nUser-Agent: {agent}\r\n\r\n"));
        assert_eq!(client.response(true).text(), text, "{agent}");
    }
}
