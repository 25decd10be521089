//! What the engine reports of containers: they end, become healthy, are paused or cut off from a network.

use std::{
    collections::HashMap,
    time::{SystemTime, UNIX_EPOCH},
};

use bollard::{
    Docker,
    models::{EventMessage, EventMessageTypeEnum},
    query_parameters::EventsOptionsBuilder,
};
use keel_model::signal_number;
use tokio_stream::{Stream, StreamExt};

use crate::error::EngineError;

/// What is asked for: each command in a container, a healthcheck's too, would be an event as well. No filter tells one
/// project's containers from others', since an event of a network carries no label. `health_status` stands for all
/// actions that begin so.
const ACTIONS: [&str; 10] = [
    "start",
    "die",
    "destroy",
    "pause",
    "unpause",
    "kill",
    "rename",
    "connect",
    "disconnect",
    "health_status",
];

/// Something that happened to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The container's id.
    pub container: String,
    /// What happened.
    pub change: Change,
}

/// What may happen to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It started.
    Started,
    /// It was sent a signal; its number, where it is known.
    Signalled(Option<i32>),
    /// It ended; its status, where it is known.
    Died(Option<i32>),
    /// It was removed.
    Removed,
    /// It was paused.
    Paused,
    /// It goes on after a pause.
    Unpaused,
    /// It has another name.
    Renamed,
    /// It joined or left a network.
    Moved,
    /// Its healthcheck passes.
    Healthy,
    /// Its healthcheck fails.
    Unhealthy,
    /// Its healthcheck began, or there is none any more.
    HealthUnknown,
}

impl Event {
    /// Reads a message of the engine's; `None` where it is about no container, or is none of [`Change`].
    pub fn read(message: &EventMessage) -> Option<Self> {
        let actor = message.actor.as_ref()?;
        let attribute = |name: &str| actor.attributes.as_ref().and_then(|all| all.get(name));
        let is_of_network = message.typ == Some(EventMessageTypeEnum::NETWORK);
        let container = if is_of_network { attribute("container") } else { actor.id.as_ref() }?;
        let change = match message.action.as_deref()? {
            "start" => Change::Started,
            "kill" => Change::Signalled(attribute("signal").and_then(|signal| signal_number(signal))),
            "die" => Change::Died(attribute("exitCode").and_then(|code| code.parse().ok())),
            // A network that is removed is no container that is.
            "destroy" if !is_of_network => Change::Removed,
            "pause" => Change::Paused,
            "unpause" => Change::Unpaused,
            "rename" => Change::Renamed,
            "connect" | "disconnect" => Change::Moved,
            "health_status: healthy" => Change::Healthy,
            "health_status: unhealthy" => Change::Unhealthy,
            action if action.starts_with("health_status") => Change::HealthUnknown,
            _ => return None,
        };
        Some(Event { container: container.clone(), change })
    }
}

/// What happens to containers from a moment on, until the connection ends.
pub fn events(docker: &Docker, since: SystemTime) -> impl Stream<Item = Result<Event, EngineError>> + use<> {
    let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    let filters = HashMap::from([
        ("type".to_owned(), texts(&["container", "network"])),
        ("event".to_owned(), texts(&ACTIONS)),
    ]);
    // The engine's clock is this machine's.
    let since = since.duration_since(UNIX_EPOCH).unwrap_or_default();
    let since = format!("{}.{:09}", since.as_secs(), since.subsec_nanos());
    let options = EventsOptionsBuilder::default().filters(&filters).since(&since).build();
    docker.events(Some(options)).filter_map(|message| match message {
        Ok(message) => Event::read(&message).map(Ok),
        Err(error) => Some(Err(error.into())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Event> {
        Event::read(&serde_json::from_str(text).expect("is a message"))
    }

    #[test]
    fn reads_what_happens_to_containers() {
        let check = |action: &str, attributes: &str, change: Option<Change>| {
            let text = format!(
                r#"{{ "Type": "container", "Action": "{action}", "Actor": {{ "ID": "a", "Attributes": {attributes} }} }}"#
            );
            assert_eq!(read(&text).map(|event| event.change), change, "{action} {attributes}");
        };
        check("start", "{}", Some(Change::Started));
        check("kill", r#"{ "signal": "15" }"#, Some(Change::Signalled(Some(15))));
        check("kill", r#"{ "signal": "quux" }"#, Some(Change::Signalled(None)));
        check("die", r#"{ "exitCode": "137" }"#, Some(Change::Died(Some(137))));
        check("die", "{}", Some(Change::Died(None)));
        check("health_status: healthy", "{}", Some(Change::Healthy));
        check("health_status: unhealthy", "{}", Some(Change::Unhealthy));
        check("health_status: starting", "{}", Some(Change::HealthUnknown));
        check("exec_create: true", "{}", None);
    }

    #[test]
    fn an_event_of_a_network_is_about_the_container_in_it() {
        let text = |action: &str| {
            format!(
                r#"{{ "Type": "network", "Action": "{action}", "Actor": {{ "ID": "n", "Attributes": {{ "container": "a" }} }} }}"#
            )
        };
        let moved = Event { container: "a".into(), change: Change::Moved };
        assert_eq!(read(&text("connect")), Some(moved));
        assert_eq!(read(&text("destroy")), None);
    }
}
