//! Which place of the configuration one is, over snapshots: a reload that leaves it as it is doesn't make it another.

use std::sync::Arc;

use keel_model::{Address, LocationMatcher, ServerName};

/// Tells a place from others: by the addresses and names of its server, and the locations down to it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PlaceIdentity {
    name: PlaceName,
    within: Option<Arc<PlaceIdentity>>,
}

/// What a place is called within the one around it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PlaceName {
    Server {
        listens: Vec<Address>,
        names: Vec<ServerName>,
    },
    Location(LocationMatcher),
    /// An `if`, by its number there.
    If(u32),
    /// The `limit_except` there.
    LimitExcept,
}

impl PlaceIdentity {
    /// Names a server outside its locations.
    pub(super) fn server(listens: Vec<Address>, names: Vec<ServerName>) -> Arc<Self> {
        Arc::new(Self { name: PlaceName::Server { listens, names }, within: None })
    }

    /// Names a place within another.
    pub(super) fn inside(within: &Arc<Self>, name: PlaceName) -> Arc<Self> {
        Arc::new(Self { name, within: Some(within.clone()) })
    }
}

#[cfg(test)]
mod tests {
    use crate::rig::{Rig, location};

    #[test]
    fn a_place_is_the_same_in_another_snapshot_unless_its_name_is_another() {
        let identity = |outer: &str, inner: &str| {
            let rig = Rig::new(|plan| {
                let mut around = location(outer);
                around.locations.push(location(inner));
                plan.servers[0].locations.push(around);
            });
            let view = rig.worker().view();
            let snapshot = &view.snapshot;
            let crate::snapshot::Found::Place(place) = snapshot.servers[0].tree.find(snapshot, b"/a/b/c")
            else {
                panic!("no location takes it")
            };
            snapshot.place(place).identity.clone()
        };
        assert_eq!(identity("/a", "/a/b"), identity("/a", "/a/b"));
        assert_ne!(identity("/a", "/a/b"), identity("/a/", "/a/b"), "the place around it is another");
        assert_ne!(identity("/a", "/a/b"), identity("/a", "/a/b/"));
    }
}
