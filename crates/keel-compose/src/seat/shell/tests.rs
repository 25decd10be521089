//! Scripts as people write them, and those that nobody should.

use keel_diag::Sources;
use proptest::strategy::Strategy as _;

use super::{super::files::Layer, *};
use crate::Origin;

/// Follows a script and gives what it says: the file, the start, what waits, what isn't run.
fn follow(script: &str) -> String {
    let span = Span::new(Sources::default().add("x", String::new()), 0..0);
    let mut files = SeatFiles::default();
    for (path, text) in [("/t/site.tmpl", "to $UP $host\n"), ("/etc/nginx/conf.d/default.conf", "own\n")] {
        files.add(Path::new(path), Layer::Copied(Origin::Text(text.into())), span);
    }
    let environment = BTreeMap::from([("UP".to_owned(), "app:5000".to_owned())]);
    let mut shell = Shell::new(&mut files, environment, Unset::Empty, "/".into(), span);
    shell.run(script);
    let (start, waits) = (shell.start.unwrap_or_default(), shell.waits);
    let not_run: Vec<String> = shell.not_run.into_iter().map(|one| one.shown).collect();
    let made = files
        .below(Path::new("/etc"))
        .into_iter()
        .map(|path| format!("{}={}", path.display(), files.text(&path).unwrap_or_default().trim_end()));
    format!("{} | {start:?} | {waits:?} | {not_run:?}", made.collect::<Vec<_>>().join(" "))
}

#[test]
fn follows_what_people_write_before_nginx() {
    let check = |script: &str, expect: &str| assert_eq!(follow(script), expect, "{script}");
    let own = "/etc/nginx/conf.d/default.conf=own";
    let made = "/etc/nginx/conf.d/default.conf=to app:5000 $host";
    let start = r#"["nginx", "-g", "daemon off;"]"#;
    check(
        "envsubst '$UP' < /t/site.tmpl > /etc/nginx/conf.d/default.conf && nginx -g 'daemon off;'",
        &format!("{made} | {start} | [] | []"),
    );
    check(
        "cat /t/site.tmpl | envsubst \"\\$UP\" | tee /etc/nginx/conf.d/default.conf; exec nginx -g \"daemon off;\"",
        &format!("{made} | {start} | [] | []"),
    );
    check(
        "envsubst \"`env | awk -F = '{printf \" \\$$%s\", $1}'`\" </t/site.tmpl >/etc/nginx/conf.d/default.conf\nnginx -g 'daemon off;'",
        &format!("{made} | {start} | [] | []"),
    );
    check(
        "while :; do sleep 6h & wait $!; nginx -s reload; done & nginx -g \"daemon off;\"",
        &format!("{own} | {start} | [\"while :; do sleep 6h & wait $!; nginx -s reload; done\"] | []"),
    );
    check(
        "rm -f /etc/nginx/conf.d/*; echo 'a;' > /etc/nginx/conf.d/a.conf; echo b >> /etc/nginx/conf.d/a.conf; nginx -t",
        "/etc/nginx/conf.d/a.conf=a;\nb | [] | [] | []",
    );
    check(
        "./wait-for-it.sh app:5000 -t 30 -- nginx -g 'daemon off;'",
        &format!("{own} | {start} | [\"./wait-for-it.sh app:5000 -t 30 -- nginx -g 'daemon off;'\"] | []"),
    );
    check(
        "sed -i s/a/b/ /etc/nginx/nginx.conf # why\n",
        &format!("{own} | [] | [] | [\"sed -i s/a/b/ /etc/nginx/nginx.conf\"]"),
    );
    check("mv /etc/nginx/conf.d/default.conf /etc/x", "/etc/x=own | [] | [] | []");
    check(
        "if [ ! -f /x ]; then if a; then b; fi; openssl req; fi; nginx",
        &format!("{own} | [\"nginx\"] | [] | [\"if [ ! -f /x ]; then if a; then b; fi; openssl req; fi\"]"),
    );
    check(
        "E=1 nginx -c /srv/a.conf 2>&1 | tee log",
        &format!("{own} | [\"nginx\", \"-c\", \"/srv/a.conf\"] | [] | []"),
    );
}
const OWN: &str = "/etc/nginx/conf.d/default.conf=own";

#[track_caller]
fn check(script: &str, expect: &str) {
    assert_eq!(follow(script), expect, "{script}");
}

/// A script that writes one file; gives its text.
#[track_caller]
fn check_text(script: &str, expect: &str) {
    check(script, &format!("/etc/a={expect} {OWN} | [] | [] | []"));
}

#[test]
fn conditions_run_neither_side() {
    let named = |text: &str| format!("{OWN} | [] | [] | [{text:?}]");
    let rm = "rm /etc/nginx/conf.d/default.conf";
    check(&format!("[ \"$MODE\" = tls ] && {rm}"), &named(rm));
    check(&format!("test -f x || {rm}"), &named(rm));
    check(&format!("grep -q x /y && {rm}; command -v z || {rm}"), &named(rm));
    check("[ -z \"$X\" ] && exit 1; [ -f x ] || echo y", &format!("{OWN} | [] | [] | []"));
    check(
        "if [ a ]; then echo '>>> a' \"a > b\" >&2; fi; [ b ] && echo x > /dev/null",
        &format!("{OWN} | [] | [] | []"),
    );
    check("[ a ] && echo x > /etc/y", &named("echo x > /etc/y"));
    check("[ -z \"$X\" ] && X=1", &named("X=1"));
    check(&format!("mkdir -p /x || {rm}"), &format!("{OWN} | [] | [] | []"));
    check("true && rm /etc/nginx/conf.d/default.conf", " | [] | [] | []");
    check(&format!("strange && {rm}"), &format!("{OWN} | [] | [] | [\"strange\", {rm:?}]"));
    check("strange && exec nginx", &format!("{OWN} | [\"nginx\"] | [] | [\"strange\"]"));
    check(
        "[ a ] && exec nginx -c a || exec nginx -c b",
        &format!("{OWN} | [] | [] | [\"exec nginx -c a\", \"exec nginx -c b\"]"),
    );
    for script in [
        format!("if [ a ]; then {rm}; fi"),
        format!("for f in a b; do {rm}; done"),
        format!("while a; do {rm}; done"),
        format!("case x in a) {rm}; esac"),
        format!("( {rm} )"),
        format!("{{ {rm}; }}"),
    ] {
        check(&script, &named(&script));
    }
    check(&format!("f() {{ {rm}; }}; f x"), &named("f x"));
    check(
        "log() { if [ a ]; then echo \"$@\"; fi; }; log x; if [ b ]; then log=; fi >/dev/null",
        &named("if [ b ]; then log=; fi >/dev/null"),
    );
}

#[test]
fn words_are_a_shells() {
    check_text("echo a \\\n  $X b > /etc/a", "a b");
    check_text("echo \\\n> /etc/a '\\\n'b", "\\\nb");
    check_text("L='-n a   b'; echo $L > /etc/a; echo \"$L\" >> /etc/a", "a b-n a   b");
    check_text("echo ${UP%:*} ${X:+y} ${X:-$UP} ${X:-${UP}} ${UP#*:} > /etc/a", "app app:5000 app:5000 5000");
    check_text("echo 1 > /etc/a; echo 2 | tee -a /etc/a; echo 3 >> /etc/a", "1\n2\n3");
    check_text("set -- a 'b c'; echo \"$2\" $# \"$@\" > /etc/a", "b c 2 a b c");
    check_text("A=1; A=2 true; B=$A; echo $A$B > /etc/a", "11");
    check_text("X=1; export Y=2; echo '$X$Y$UP' > /t; envsubst < /t > /etc/a", "2app:5000");
    check_text(
        "cat > /etc/a <<EOF\nrm $UP; \\$x\nrm /etc/nginx/conf.d/default.conf\nEOF",
        "rm app:5000; $x\nrm /etc/nginx/conf.d/default.conf",
    );
    check_text("cat <<-'EOF' | tee /etc/a\n\t$UP\n\tEOF\n", "$UP");
    check_text("cat <<< \"$UP\" > /etc/a", "app:5000");
    let unknown = |text: &str| format!("{OWN} | [] | [] | [{text:?}]");
    for script in
        ["X=$(date); echo $X > /etc/a", "echo ${UP^^} > /etc/a", "cp /t/{a,b} /etc", "echo $? > /etc/a"]
    {
        let last = script.rsplit("; ").next().unwrap_or_default();
        check(script, &unknown(last));
    }
}

#[test]
fn what_runs_inside_a_word_is_named() {
    let named = |text: &str| format!("{OWN} | [] | [] | [{text:?}]");
    for script in [
        "echo $(rm /etc/nginx/conf.d/default.conf)",
        "X=$(sed -i s/a/b/ /etc/nginx/nginx.conf)",
        "echo \"`cp /t/site.tmpl /etc/a`\"",
        ": $(echo a > /etc/a)",
        "true <(rm /x)",
        "echo $(cat $(rm /x))",
        "[ \"$(rm /x)\" ]",
    ] {
        check(script, &named(script));
    }
    check("cat > /etc/a <<EOF\n$(rm /x)\nEOF\n", &named("cat > /etc/a << EOF"));
    check("if [ $(rm /x) ]; then echo; fi", &named("if [ $(rm /x) ]; then echo; fi"));
    check(
        "X=$(date | cut -d: -f1); Y=`env | awk '{print $1}'`; Z=$((1<<2))",
        &format!("{OWN} | [] | [] | []"),
    );
    check(
        "echo $((1<<2)) > /etc/a\nrm /etc/nginx/conf.d/default.conf",
        " | [] | [] | [\"echo $((1<<2)) > /etc/a\"]",
    );
}

#[test]
fn what_is_written_is_what_a_shell_writes_or_named() {
    check_text("printf '%s %d%%\\n' a 7 b > /etc/a", "a 7%\nb 0%");
    check_text("printf 'listen %s;\\n' 80 81 > /etc/a", "listen 80;\nlisten 81;");
    check_text("printf 'a\\\\n\\tb' > /etc/a", "a\\n\tb");
    check_text("printf -- 'x' y > /etc/a", "x");
    check_text("echo -e 'a\\nb' > /etc/a", "a\nb");
    check_text(": ${PORT:=80} ${UP:=x}; echo $PORT $UP > /etc/a", "80 app:5000");
    check_text(": ${A=$UP}; echo $A > /etc/a", "app:5000");
    for script in [
        "echo ${A=$UP}$A > /etc/a",
        "printf '%05d' 7 > /etc/a",
        "printf '\\x41' > /etc/a",
        "printf '%d' x > /etc/a",
        "echo -e '\\033' > /etc/a",
        "echo -E a > /etc/a",
        "echo 'a\\tb' > /etc/a",
        "echo $'a' > /etc/a",
        "printf -v X y > /etc/a",
    ] {
        check(script, &format!("{OWN} | [] | [] | [{script:?}]"));
    }
    check("IFS=,; L=a,b; cp /t/site.tmpl $L", &format!("{OWN} | [] | [] | [\"cp /t/site.tmpl $L\"]"));
}

#[test]
fn paths_start_from_the_current_folder() {
    check("cd /t; cp site.tmpl /etc/a", &format!("/etc/a=to $UP $host {OWN} | [] | [] | []"));
    check(
        "cd /etc && cd x && cp ../../t/site.tmpl a",
        &format!("{OWN} /etc/x/a=to $UP $host | [] | [] | []"),
    );
    check(
        "mkdir -p /etc/d; cp /t/site.tmpl /etc/d",
        &format!("/etc/d/site.tmpl=to $UP $host {OWN} | [] | [] | []"),
    );
    check("cp -r /t/. /etc/", &format!("{OWN} /etc/site.tmpl=to $UP $host | [] | [] | []"));
    check(
        "cp -r /t /etc/new; cp -r /t /etc/",
        &format!("/etc/new/site.tmpl=to $UP $host {OWN} /etc/t/site.tmpl=to $UP $host | [] | [] | []"),
    );
    check("cd $(x); rm a", &format!("{OWN} | [] | [] | [\"cd $(x)\", \"rm a\"]"));
    check("[ a ] && cd /t; rm a", &format!("{OWN} | [] | [] | [\"rm a\"]"));
    check("cd -; rm a", &format!("{OWN} | [] | [] | [\"rm a\"]"));
    check("cp -n /t/site.tmpl /etc/a", &format!("{OWN} | [] | [] | [\"cp -n /t/site.tmpl /etc/a\"]"));
}

fn shell(
    files: &mut SeatFiles,
    scripts: &[(&str, &str)],
    argv: &[&str],
) -> (Vec<String>, Vec<String>, Option<&'static str>) {
    let span = Span::new(Sources::default().add("x", String::new()), 0..0);
    for (path, text) in scripts {
        files.write(Path::new(path), (*text).to_owned(), span);
    }
    let mut shell = Shell::new(files, BTreeMap::new(), Unset::Empty, "/".into(), span);
    shell.argv(&argv.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
    let not_run = shell.not_run.into_iter().map(|one| one.shown).collect();
    (shell.start.unwrap_or_default(), not_run, shell.cut)
}

#[test]
fn an_entrypoint_starts_the_command() {
    let start = |script: &str, argv: &[&str]| {
        let (start, not_run, cut) = shell(&mut SeatFiles::default(), &[("/e.sh", script)], argv);
        format!("{start:?} {not_run:?} {cut:?}")
    };
    let nginx = ["/e.sh", "nginx", "-g", "daemon off;"];
    let started = r#"["nginx", "-g", "daemon off;"] [] None"#;
    assert_eq!(start("#!/bin/sh\nset -e\nexec \"$@\"\n", &nginx), started);
    assert_eq!(start("#!/usr/bin/env bash\nexec \"$@\"\nrm x\n", &nginx), started);
    assert_eq!(start("exec \"$@\"", &["sh", "/e.sh", "nginx", "-g", "daemon off;"]), started);
    assert_eq!(start("#!/usr/bin/python3\nexec nginx\n", &["/e.sh"]), "[] [\"/e.sh\"] None");
}

#[test]
fn scripts_end() {
    let run = |script: &str| {
        let mut files = SeatFiles::default();
        let (start, _, cut) = shell(&mut files, &[("/e.sh", script)], &["sh", "/e.sh"]);
        assert!(start.is_empty());
        cut
    };
    assert!(run("sh /e.sh; sh /e.sh\n").is_some());
    assert!(run(". /e.sh\n. /e.sh").is_some());
    assert!(run(&format!("{}nginx", "exec ".repeat(50_000))).is_some());
    assert!(run(&"true\n".repeat(20_000)).is_some());
    assert_eq!(run(&format!("echo {}", "$(".repeat(200_000))), None);
    assert_eq!(run(&format!(": {}", "${A:=".repeat(100_000))), None);
    assert_eq!(run(&format!("A=aa\n{}", "export A=$A$A\n".repeat(40))), None);
    assert_eq!(run(&format!("echo a > /a\n{}", "cat /a /a > /b; cp /b /a\n".repeat(40))), None);
    assert!(run(&format!("A=aa\n{}{}", "A=$A$A\n".repeat(18), "echo $A > /x\n".repeat(200))).is_some());
}

const PIECES: &[&str] = &[
    "if ",
    "then ",
    "fi",
    "for f in a; do ",
    "done",
    "case x in ",
    "a) ",
    ";;",
    "esac",
    "{ ",
    "}",
    "(",
    ")",
    "f() ",
    "\n",
    "; ",
    " && ",
    " || ",
    " | ",
    "&",
    ">",
    ">>",
    "<",
    "<<EOF\n",
    "\nEOF\n",
    "<<<",
    "2>&1",
    "'",
    "\"",
    "`",
    "$(",
    "${",
    "$A",
    "${A:-",
    "${A%",
    "$@",
    "\\",
    "\\\n",
    "#",
    " ",
    "*",
    "?",
    "[ ",
    "! ",
    "cat ",
    "cp ",
    "-r ",
    "rm ",
    "mv ",
    "ln -s ",
    "mkdir ",
    "/t",
    "/.",
    "a",
    "é",
    "sh /t ",
    ". /t ",
    "exec ",
    "set -- ",
    "export A=",
    "A=$A$A",
    "cd ",
    "envsubst ",
    "tee -a ",
    "echo ",
    "nginx",
    "unset A",
    "=",
    "..",
];

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 1000, ..Default::default() })]
    #[test]
    fn any_text_ends(words in proptest::collection::vec(proptest::prop_oneof![
        8 => proptest::sample::select(PIECES).prop_map(str::to_owned), 1 => "\\PC{0,3}",
    ], 0..60)) {
        let script = words.concat();
        let _ = shell(&mut SeatFiles::default(), &[("/t", &script)], &["sh", "/t", "a", "b c"]);
        let _ = effect(&script);
    }
}
