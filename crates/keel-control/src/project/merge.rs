//! Two configurations as one.

use keel_model::{Location, MapId, Part, Scope, ServerId, Template, Variable};
use keel_nginx::Configuration;

/// Adds the servers, upstreams and maps of a configuration that Evenkeel wrote to one that a person wrote.
///
/// Only what [`direct_configuration`](super::direct_configuration) writes need be understood: its maps are used in
/// `proxy_set_header` alone.
pub(super) fn append(configuration: &mut Configuration, written: Configuration) {
    let plan = &mut configuration.plan;
    let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    let (servers, maps) = (count(plan.servers.len()), count(plan.maps.len()));
    let shift = |id: &mut ServerId| id.0 += servers;
    let mut added = written.plan;
    for listener in &mut added.listeners {
        shift(&mut listener.default_server);
        listener.servers.iter_mut().for_each(shift);
        for (_, default, others) in &mut listener.by_local_address {
            shift(default);
            others.iter_mut().for_each(shift);
        }
    }
    for server in &mut added.servers {
        shift_maps(&mut server.scope, maps);
        shift_locations(&mut server.locations, maps);
    }
    plan.listeners.extend(added.listeners);
    plan.servers.extend(added.servers);
    plan.upstreams.extend(added.upstreams);
    plan.maps.extend(added.maps);
    configuration.upstreams.extend(written.upstreams);
}

fn shift_locations(locations: &mut [Location], by: u32) {
    for location in locations {
        shift_maps(&mut location.scope, by);
        shift_locations(&mut location.locations, by);
    }
}

fn shift_maps(scope: &mut Scope, by: u32) {
    for (_, Template { parts }) in &mut scope.proxy.set_headers {
        for part in parts {
            if let Part::Variable(Variable::Map(MapId(id))) = part {
                *id += by;
            }
        }
    }
}
