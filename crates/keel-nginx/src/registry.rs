//! The table of directives.
//!
//! Each directive is one [`Row`], declared in the file of its module under `directives/`. What it may stand in, how
//! many arguments it takes, what it defaults to and what its documentation says are read from the row, never repeated.

use std::ops::RangeInclusive;

use crate::{ast::Directive, directives, reader::Reader};

/// Blocks that a directive may stand in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Contexts(u32);

impl Contexts {
    /// Outside all blocks.
    pub(crate) const MAIN: Self = Self(1);
    /// `events`.
    pub(crate) const EVENTS: Self = Self(1 << 1);
    /// `http`.
    pub(crate) const HTTP: Self = Self(1 << 2);
    /// `server` in `http`.
    pub(crate) const SERVER: Self = Self(1 << 3);
    /// `location`.
    pub(crate) const LOCATION: Self = Self(1 << 4);
    /// `upstream` in `http`.
    pub(crate) const UPSTREAM: Self = Self(1 << 5);
    /// `if` in `server`.
    pub(crate) const SERVER_IF: Self = Self(1 << 6);
    /// `if` in `location`.
    pub(crate) const LOCATION_IF: Self = Self(1 << 7);
    /// `if`, wherever it stands.
    pub(crate) const IF: Self = Self::SERVER_IF.or(Self::LOCATION_IF);
    /// `limit_except`.
    pub(crate) const LIMIT_EXCEPT: Self = Self(1 << 8);
    /// `stream`.
    pub(crate) const STREAM: Self = Self(1 << 9);
    /// `server` in `stream`.
    pub(crate) const STREAM_SERVER: Self = Self(1 << 10);
    /// `upstream` in `stream`.
    pub(crate) const STREAM_UPSTREAM: Self = Self(1 << 11);
    /// `mail`.
    pub(crate) const MAIL: Self = Self(1 << 12);
    /// `server` in `mail`.
    pub(crate) const MAIL_SERVER: Self = Self(1 << 13);
    /// Everywhere.
    pub(crate) const ANY: Self = Self(u32::MAX);
    /// `http` and `server`.
    pub(crate) const HTTP_SERVER: Self = Self::HTTP.or(Self::SERVER);
    /// `http`, `server` and `location`.
    pub(crate) const HTTP_ALL: Self = Self::HTTP_SERVER.or(Self::LOCATION);
    /// `http`, `server`, `location` and `if` in it.
    pub(crate) const HTTP_ALL_IF: Self = Self::HTTP_ALL.or(Self::LOCATION_IF);
    /// `server` and `location`.
    pub(crate) const SERVER_LOCATION: Self = Self::SERVER.or(Self::LOCATION);
    /// `server` and `location`, and `if` in them.
    pub(crate) const SERVER_LOCATION_IF: Self = Self::SERVER_LOCATION.or(Self::IF);
    /// `stream` and its `server`.
    pub(crate) const STREAM_ALL: Self = Self::STREAM.or(Self::STREAM_SERVER);
    /// `mail` and its `server`.
    pub(crate) const MAIL_ALL: Self = Self::MAIL.or(Self::MAIL_SERVER);

    const NAMES: [(Self, &'static str); 14] = [
        (Self::MAIN, "main"),
        (Self::EVENTS, "events"),
        (Self::HTTP, "http"),
        (Self::SERVER, "server"),
        (Self::LOCATION, "location"),
        (Self::UPSTREAM, "upstream"),
        (Self::SERVER_IF, "if in server"),
        (Self::LOCATION_IF, "if in location"),
        (Self::LIMIT_EXCEPT, "limit_except"),
        (Self::STREAM, "stream"),
        (Self::STREAM_SERVER, "server in stream"),
        (Self::STREAM_UPSTREAM, "upstream in stream"),
        (Self::MAIL, "mail"),
        (Self::MAIL_SERVER, "server in mail"),
    ];

    /// Gives both together.
    pub(crate) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Tells whether any block is in both.
    pub(crate) fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Gives the names of the blocks.
    pub(crate) fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(move |(context, _)| self.meets(*context)).map(|(_, name)| name)
    }
}

/// How many arguments a directive takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arity {
    /// From so many to so many.
    Take(u8, u8),
    /// So many or more.
    AtLeast(u8),
}

impl Arity {
    /// None.
    pub(crate) const NONE: Self = Self::Take(0, 0);
    /// One.
    pub(crate) const ONE: Self = Self::Take(1, 1);
    /// Two.
    pub(crate) const TWO: Self = Self::Take(2, 2);

    /// Tells whether so many arguments are right.
    pub(crate) fn admits(self, count: usize) -> bool {
        self.range().contains(&count)
    }

    /// Says how many are right, in words.
    pub(crate) fn words(self) -> String {
        let plural = |count: u8| if count == 1 { "argument" } else { "arguments" };
        match self {
            Self::Take(0, 0) => "no argument".to_owned(),
            Self::Take(from, to) if from == to => format!("{from} {}", plural(from)),
            Self::Take(from, to) => format!("{from} to {to} arguments"),
            Self::AtLeast(from) => format!("{from} {} or more", plural(from)),
        }
    }

    fn range(self) -> RangeInclusive<usize> {
        match self {
            Self::Take(from, to) => usize::from(from)..=usize::from(to),
            Self::AtLeast(from) => usize::from(from)..=usize::MAX,
        }
    }
}

/// What reading a directive does.
#[derive(Clone, Copy)]
pub(crate) enum Setter {
    /// It ends in `;` and sets something.
    Simple(fn(&mut Reader<'_>, &Directive)),
    /// It ends in `;`, stands in a block once and is only checked: nothing acts on it.
    Checked(fn(&mut Reader<'_>, &Directive)),
    /// It has a block, which is given too.
    Block(fn(&mut Reader<'_>, &Directive, &[Directive])),
}

/// One directive.
pub(crate) struct Row {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its arguments as documentation shows them.
    pub(crate) syntax: &'static str,
    /// Where it may stand.
    pub(crate) contexts: Contexts,
    /// How many arguments it takes.
    pub(crate) arity: Arity,
    /// What holds without it, as it would be written.
    pub(crate) default: Option<&'static str>,
    /// What it does, one or two sentences.
    pub(crate) doc: &'static str,
    /// What reading it does.
    pub(crate) set: Setter,
}

/// The rows of one nginx module.
pub(crate) struct Module {
    /// nginx's name for it.
    pub(crate) name: &'static str,
    /// Its directives.
    pub(crate) rows: &'static [Row],
}

/// Gives all rows with a name; there are several where contexts differ in meaning (`server`, `keepalive_timeout`).
pub(crate) fn rows(name: &str) -> impl Iterator<Item = &'static Row> {
    all().filter(move |row| row.name == name)
}

/// Tells whether a directive has an effect.
pub fn is_honoured(name: &str) -> bool {
    rows(name).next().is_some()
}

/// Gives the names of all directives that have an effect.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    all().map(|row| row.name)
}

fn all() -> impl Iterator<Item = &'static Row> {
    directives::MODULES.iter().flat_map(|module| module.rows).chain(directives::http_upstream::policy_rows())
}

#[cfg(test)]
mod tests {
    use std::{io, net::IpAddr, path::Path};

    use keel_diag::Sources;
    use keel_model::{ClientSettings, ProcessSettings, Scope};

    use super::*;
    use crate::{Configuration, Files, Options, load};

    /// Defaults that are described rather than written.
    const DESCRIBED: [&str; 2] = ["listen", "log_format"];

    /// Defaults that the supervisor works out, of its arguments, rights and environment.
    const SUPERVISORS: [&str; 3] = ["error_log", "user", "env"];

    struct OneFile(String);

    impl Files for OneFile {
        fn read(&self, _: &Path) -> io::Result<Vec<u8>> {
            Ok(self.0.clone().into_bytes())
        }

        fn glob(&self, _: &Path) -> Vec<std::path::PathBuf> {
            Vec::new()
        }

        fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
            Err(io::Error::other("nothing is resolved here"))
        }

        fn is_root(&self) -> bool {
            false
        }
    }

    /// Reads a configuration with a directive in one block, behind everything whose place is noted. Paths begin nowhere.
    fn configuration(context: Contexts, directive: &str) -> Option<Configuration> {
        let inside = |block: Contexts| if block == context { directive } else { "" };
        let text = format!(
            "http {{ upstream u {{ server 127.0.0.1:1; {} }}
                server {{ listen 127.0.0.1:80; location / {{ proxy_pass http://u; {} }} {} }} {} }}
             events {{ {} }} {}",
            inside(Contexts::UPSTREAM),
            inside(Contexts::LOCATION),
            inside(Contexts::SERVER),
            inside(Contexts::HTTP),
            inside(Contexts::EVENTS),
            inside(Contexts::MAIN),
        );
        let options = Options { conf_path: "nginx.conf".into(), ..Options::default() };
        load(&options, &OneFile(text), &mut Sources::default()).configuration
    }

    fn defaults() -> impl Iterator<Item = (&'static Row, Contexts, String)> {
        let rows = all().filter(|row| !DESCRIBED.contains(&row.name));
        rows.flat_map(|row| {
            let contexts = Contexts::NAMES.into_iter().map(|(context, _)| context);
            let contexts = contexts.filter(|context| row.contexts.meets(*context));
            let end = |default: &str| if default.ends_with('}') { "" } else { ";" };
            contexts.filter_map(move |context| {
                let default = row.default?;
                Some((row, context, format!("{} {default}{}", row.name, end(default))))
            })
        })
    }

    #[test]
    fn documented_defaults_are_the_models() {
        let unset = configuration(Contexts::MAIN, "").expect("it has no error");
        let server = &unset.plan.servers[0];
        assert_eq!(server.scope, Scope::default());
        assert_eq!(server.client, ClientSettings::default());
        assert_eq!(unset.plan.process, ProcessSettings::default());
        // The redirect that is the default follows from a `proxy_pass` in the same block.
        let is_possible = |row: &Row, context| row.name != "proxy_redirect" || context == Contexts::LOCATION;
        let differs = |(_, context, directive): &(_, _, String)| {
            let mut set = configuration(*context, directive);
            // What is named is noted besides, be it the default.
            set.iter_mut().for_each(|set| set.main.http_logs.clear());
            set.as_ref() != Some(&unset)
        };
        let models = defaults().filter(|(row, context, _)| {
            is_possible(row, *context) && !(SUPERVISORS.contains(&row.name) && *context == Contexts::MAIN)
        });
        let differing: Vec<_> = models.filter(differs).map(|(_, _, directive)| directive).collect();
        assert_eq!(differing, Vec::<String>::new());
    }

    #[test]
    fn every_row_with_a_default_sets_something() {
        for (row, context, text) in defaults() {
            let mut sources = Sources::default();
            let source = sources.add("default", text.clone());
            let (directives, _) = crate::parser::parse(&sources, source);
            let files = OneFile(String::new());
            let mut reader = Reader::new(Path::new(""), Path::new(""), &files, &sources);
            let fresh = || crate::reader::Frame::new(context, None);
            let mut read = reader.inside(fresh(), &directives);
            read.seen.clear();
            let sets = format!("{read:?}") != format!("{:?}", fresh());
            assert_eq!(sets, !matches!(row.set, Setter::Checked(_)), "{text}");
        }
    }
}
