//! The table of directives.
//!
//! Each directive is one [`Row`], declared in the file of its module under `directives/`. What it may stand in, how
//! many arguments it takes, what it defaults to and what its documentation says are read from the row, never repeated.

use std::ops::RangeInclusive;

use crate::{ast::Directive, directives, reader::Reader};

/// Blocks that a directive may stand in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Contexts(u8);

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
    /// `upstream`.
    pub(crate) const UPSTREAM: Self = Self(1 << 5);
    /// `http` and `server`.
    pub(crate) const HTTP_SERVER: Self = Self::HTTP.or(Self::SERVER);
    /// Everywhere.
    pub(crate) const ANY: Self = Self(u8::MAX);
    /// `http`, `server` and `location`.
    pub(crate) const HTTP_ALL: Self = Self::HTTP_SERVER.or(Self::LOCATION);
    /// `server` and `location`.
    pub(crate) const SERVER_LOCATION: Self = Self::SERVER.or(Self::LOCATION);

    const NAMES: [(Self, &'static str); 6] = [
        (Self::MAIN, "main"),
        (Self::EVENTS, "events"),
        (Self::HTTP, "http"),
        (Self::SERVER, "server"),
        (Self::LOCATION, "location"),
        (Self::UPSTREAM, "upstream"),
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
