//! Several configurations as one.

use keel_model::ServerId;
use keel_nginx::Configuration;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Adds the servers, upstreams and variables of a configuration to another. Upstreams that both have are taken once.
///
/// # Errors
/// When a part can't be copied with its variables renumbered.
pub(super) fn append(configuration: &mut Configuration, added: Configuration) -> serde_json::Result<()> {
    let plan = &mut configuration.plan;
    let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    let (servers, variables) = (count(plan.servers.len()), count(plan.variables.len()));
    let shift = |id: &mut ServerId| id.0 = id.0.saturating_add(servers);
    let mut new = added.plan;
    for listener in &mut new.listeners {
        shift(&mut listener.default_server);
        listener.servers.iter_mut().for_each(shift);
        for (_, default, others) in &mut listener.by_local_address {
            shift(default);
            others.iter_mut().for_each(shift);
        }
    }
    if !new.variables.is_empty() && variables > 0 {
        new.servers = renumbered(&new.servers, variables)?;
        new.variables = renumbered(&new.variables, variables)?;
    }
    plan.listeners.extend(new.listeners);
    plan.servers.extend(new.servers);
    plan.variables.extend(new.variables);
    plan.trees.extend(new.trees);
    for (upstream, source) in new.upstreams.into_iter().zip(added.upstreams) {
        if plan.upstreams.iter().all(|known| known.name != upstream.name) {
            plan.upstreams.push(upstream);
            configuration.upstreams.push(source);
        }
    }
    Ok(())
}

/// Copies a part of a plan with other numbers of its variables. Templates stand at many places of a scope, and more come;
/// in the form in which the plan goes to the data plane all look alike.
fn renumbered<T: Serialize + DeserializeOwned>(part: &T, by: u32) -> serde_json::Result<T> {
    let mut value = serde_json::to_value(part)?;
    shift_variables(&mut value, by);
    serde_json::from_value(value)
}

fn shift_variables(value: &mut Value, by: u32) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match (name.as_str(), value.as_u64()) {
                    // `Variable::Defined(VariableId)`.
                    ("Defined", Some(id)) => *value = Value::from(id + u64::from(by)),
                    _ => shift_variables(value, by),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| shift_variables(value, by)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
