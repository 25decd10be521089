//! The system as a drawing and as PlantUML: client, balancer, upstreams, instances in their services and networks.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use keel_report::{
    font::{Face, OTHER_FONT},
    picture::{Anchor, Area, Ink, Pen, Picture, Style, at},
    words,
};

use crate::results::{Instance, Listener, System, Upstream};

const WIDTH: f64 = 760.0;
const MARGIN: f64 = 16.0;
const CLIENT: Column = Column { x: MARGIN, width: 76.0 };
const BALANCER: Column = Column { x: 138.0, width: 178.0 };
const UPSTREAMS: Column = Column { x: 366.0, width: 136.0 };
const INSTANCES: Column = Column { x: 556.0, width: WIDTH - 556.0 - MARGIN };
const BOX: f64 = 40.0;
const GAP: f64 = 10.0;
const PADDING: f64 = 12.0;
const LABEL: f64 = 20.0;

/// Networks of instances that an upstream names and the drill doesn't run.
const ELSEWHERE: &str = "not run by the drill";

/// Where boxes of one kind stand.
#[derive(Clone, Copy)]
struct Column {
    x: f64,
    width: f64,
}

/// Instances that share their networks and their service.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Group<'a> {
    networks: String,
    service: &'a str,
}

type Groups<'a> = BTreeMap<Group<'a>, Vec<(&'a str, &'a str)>>;

/// Networks in the order of the upstreams that reach into them, so that lines cross little; those that none reaches last.
fn frames<'a>(groups: &'a Groups<'_>, upstreams: &[Upstream]) -> Vec<&'a str> {
    let mut frames = BTreeMap::new();
    for (group, instances) in groups {
        let reaches = |upstream: &Upstream| {
            instances.iter().any(|(name, _)| upstream.instances.iter().any(|in_it| in_it == name))
        };
        let first = upstreams.iter().position(reaches).unwrap_or(usize::MAX);
        let place = frames.entry(group.networks.as_str()).or_insert(first);
        *place = first.min(*place);
    }
    let mut frames: Vec<_> = frames.into_iter().collect();
    frames.sort_by_key(|(name, first)| (*first, *name));
    frames.into_iter().map(|(name, _)| name).collect()
}

/// Names and addresses of instances, by networks and service; those that only an upstream knows come with them.
fn groups(system: &System) -> Groups<'_> {
    let mut groups = Groups::new();
    for Instance { name, service, address, networks } in &system.instances {
        let networks = match networks.as_slice() {
            [] => String::new(),
            [one] => format!("network {one}"),
            more => format!("networks {}", more.join(", ")),
        };
        groups.entry(Group { networks, service }).or_default().push((name, address));
    }
    let known: BTreeSet<&str> = system.instances.iter().map(|instance| instance.name.as_str()).collect();
    let named: BTreeSet<&str> =
        system.upstreams.iter().flat_map(|upstream| &upstream.instances).map(String::as_str).collect();
    for name in named.difference(&known) {
        let group = Group { networks: ELSEWHERE.to_owned(), service: "" };
        groups.entry(group).or_default().push((name, ""));
    }
    for instances in groups.values_mut() {
        instances.sort_by_key(|(name, _)| words::natural_order(name));
    }
    groups
}

/// Whether a service is worth naming beside its instances: the one instance of a service has its name.
fn is_framed(group: &Group<'_>, instances: &[(&str, &str)]) -> bool {
    !group.service.is_empty() && !matches!(instances, [(name, _)] if *name == group.service)
}

/// Draws the system; none where nothing of it is known.
pub(super) fn draw(system: &System, proxy: &str) -> Option<Picture> {
    if system.listeners.is_empty() && system.instances.is_empty() {
        return None;
    }
    let mut picture = Picture::new(WIDTH, "Client, balancer, upstreams and instances".to_owned());
    let heads = Style::new(11.0, Ink::Muted).bold();
    let top = MARGIN + 26.0;

    let groups = groups(system);
    let mut instances = BTreeMap::new();
    let mut marks = Picture::new(WIDTH, String::new());
    let bottom = draw_instances(&mut marks, &groups, &system.upstreams, top, &mut instances);
    let balancer_height = balancer_height(system, proxy);
    let upstreams_height = stack(system.upstreams.len());
    let height = (bottom - top).max(balancer_height).max(upstreams_height);
    let centre = top + height / 2.0;
    if bottom - top < height {
        let down = (height - (bottom - top)) / 2.0;
        marks = Picture::new(WIDTH, String::new());
        instances.clear();
        draw_instances(&mut marks, &groups, &system.upstreams, top + down, &mut instances);
    }

    for (column, text) in
        [(CLIENT, "Client"), (BALANCER, "Balancer"), (UPSTREAMS, "Upstreams"), (INSTANCES, "Instances")]
    {
        picture.text(at(column.x, MARGIN + 12.0), text, heads);
    }
    let listeners = draw_balancer(&mut picture, system, proxy, centre - balancer_height / 2.0);
    let upstreams = draw_upstreams(&mut picture, system, &instances, (top, top + height));
    draw_client(&mut picture, &listeners, centre);
    draw_edges(&mut picture, system, &listeners, &upstreams, &instances);
    picture.marks.append(&mut marks.marks);
    picture.height = top + height + MARGIN;
    Some(picture)
}

fn stack(boxes: usize) -> f64 {
    boxes as f64 * (BOX + GAP)
}

fn draw_instances<'a>(
    picture: &mut Picture,
    groups: &Groups<'a>,
    upstreams: &[Upstream],
    top: f64,
    middles: &mut BTreeMap<&'a str, f64>,
) -> f64 {
    let mut y = top;
    for network in frames(groups, upstreams) {
        let frame = picture.marks.len();
        let frame_top = y;
        y += if network.is_empty() { PADDING } else { LABEL + 4.0 };
        for (group, instances) in groups.iter().filter(|(group, _)| group.networks == network) {
            if is_framed(group, instances) {
                let label = Face::Regular.fit(
                    &format!("service {}", group.service),
                    11.0,
                    (INSTANCES.width - 20.0) / OTHER_FONT,
                );
                picture.text(at(INSTANCES.x + PADDING, y + 11.0), label, Style::new(11.0, Ink::Muted));
                y += LABEL - 2.0;
            }
            for (name, address) in instances {
                let column = Column { x: INSTANCES.x + PADDING, width: INSTANCES.width - 2.0 * PADDING };
                draw_box(picture, column, y, (name, address), Pen::new(Ink::Data, 1.2));
                middles.insert(name, y + BOX / 2.0);
                y += BOX + GAP;
            }
        }
        y += PADDING - GAP;
        let area = Area { x: INSTANCES.x, y: frame_top, width: INSTANCES.width, height: y - frame_top };
        let mut under = Picture::new(WIDTH, String::new());
        under.rectangle(area, 6.0, Some(Ink::Panel), Some(Pen::dashed(Ink::Muted, 1.0)));
        let label = Face::Regular.fit(network, 11.0, (INSTANCES.width - 20.0) / OTHER_FONT);
        under.text(at(INSTANCES.x + PADDING, frame_top + 16.0), label, Style::new(11.0, Ink::Muted).bold());
        picture.marks.splice(frame..frame, under.marks);
        y += GAP;
    }
    y - GAP
}

/// A box with a name, and below it what else is to know.
fn draw_box(picture: &mut Picture, column: Column, top: f64, (name, detail): (&str, &str), pen: Pen) {
    let area = Area { x: column.x, y: top, width: column.width, height: BOX };
    picture.rectangle(area, 4.0, Some(Ink::Surface), Some(pen));
    let room = (column.width - 16.0) / OTHER_FONT;
    let name = Face::Bold.fit(name, 12.0, room);
    if detail.is_empty() {
        picture.text(at(column.x + 8.0, top + 24.0), name, Style::new(12.0, Ink::Text).bold());
        return;
    }
    picture.text(at(column.x + 8.0, top + 17.0), name, Style::new(12.0, Ink::Text).bold());
    let detail = Face::Mono.fit(detail, 10.5, room);
    picture.text(at(column.x + 8.0, top + 31.0), detail, Style::new(10.5, Ink::Muted).mono());
}

fn proxy_lines(proxy: &str) -> Vec<String> {
    Face::Bold.wrap(proxy, 12.0, (BALANCER.width - 2.0 * PADDING) / OTHER_FONT)
}

fn proxy_height(proxy: &str) -> f64 {
    PADDING + proxy_lines(proxy).len() as f64 * 16.0 + 6.0
}

fn balancer_height(system: &System, proxy: &str) -> f64 {
    proxy_height(proxy) + stack(system.listeners.len()) + PADDING - GAP
}

/// Draws the balancer and gives the middles of its listeners, in their order.
fn draw_balancer(picture: &mut Picture, system: &System, proxy: &str, top: f64) -> Vec<f64> {
    let height = balancer_height(system, proxy);
    let area = Area { x: BALANCER.x, y: top, width: BALANCER.width, height };
    picture.rectangle(area, 6.0, Some(Ink::DataSoft), Some(Pen::new(Ink::Data, 1.2)));
    let mut y = top + PADDING;
    for line in proxy_lines(proxy) {
        picture.text(at(BALANCER.x + PADDING, y + 11.0), line, Style::new(12.0, Ink::Text).bold());
        y += 16.0;
    }
    y += 6.0;
    let column = Column { x: BALANCER.x + PADDING, width: BALANCER.width - 2.0 * PADDING };
    let mut middles = Vec::new();
    for Listener { address, listen, .. } in &system.listeners {
        let area = Area { x: column.x, y, width: column.width, height: BOX };
        picture.rectangle(area, 4.0, Some(Ink::Surface), Some(Pen::new(Ink::Data, 1.2)));
        let room = (column.width - 16.0) / OTHER_FONT;
        let style = Style::new(11.0, Ink::Text).mono();
        picture.text(at(column.x + 8.0, y + 17.0), Face::Mono.fit(address, 11.0, room), style);
        if !listen.is_empty() {
            let label = Face::Regular.fit(&format!("listen {listen}"), 11.0, room);
            picture.text(at(column.x + 8.0, y + 31.0), label, Style::new(11.0, Ink::Muted));
        }
        middles.push(y + BOX / 2.0);
        y += BOX + GAP;
    }
    middles
}

/// Draws the upstreams beside their instances and gives their middles.
fn draw_upstreams<'a>(
    picture: &mut Picture,
    system: &'a System,
    instances: &BTreeMap<&str, f64>,
    (top, bottom): (f64, f64),
) -> BTreeMap<&'a str, f64> {
    let mut places: Vec<(f64, &Upstream)> = Vec::new();
    for upstream in &system.upstreams {
        let middles: Vec<f64> =
            upstream.instances.iter().filter_map(|name| instances.get(name.as_str())).copied().collect();
        let wanted = if middles.is_empty() {
            (top + bottom) / 2.0
        } else {
            middles.iter().sum::<f64>() / middles.len() as f64
        };
        places.push((wanted, upstream));
    }
    places.sort_by(|(a, left), (b, right)| a.total_cmp(b).then_with(|| left.name.cmp(&right.name)));
    // Down to where they don't overlap, then up to where the last still fits.
    let mut lowest = top + BOX / 2.0;
    for (place, _) in &mut places {
        *place = place.max(lowest);
        lowest = *place + BOX + GAP;
    }
    let mut highest = bottom - BOX / 2.0;
    for (place, _) in places.iter_mut().rev() {
        *place = place.min(highest);
        highest = *place - BOX - GAP;
    }
    let mut middles = BTreeMap::new();
    for (middle, upstream) in places {
        let area = Area { x: UPSTREAMS.x, y: middle - BOX / 2.0, width: UPSTREAMS.width, height: BOX };
        picture.rectangle(area, 4.0, Some(Ink::Surface), Some(Pen::new(Ink::Text, 1.2)));
        let room = (UPSTREAMS.width - 16.0) / OTHER_FONT;
        let name = Face::Bold.fit(&upstream.name, 12.0, room);
        picture.text(at(area.x + 8.0, area.y + 17.0), name, Style::new(12.0, Ink::Text).bold());
        let policy = Face::Regular.fit(&upstream.policy, 11.0, room);
        picture.text(at(area.x + 8.0, area.y + 31.0), policy, Style::new(11.0, Ink::Muted));
        middles.insert(upstream.name.as_str(), middle);
    }
    middles
}

fn draw_client(picture: &mut Picture, listeners: &[f64], centre: f64) {
    let centre =
        if listeners.is_empty() { centre } else { listeners.iter().sum::<f64>() / listeners.len() as f64 };
    let area = Area { x: CLIENT.x, y: centre - BOX / 2.0, width: CLIENT.width, height: BOX };
    picture.rectangle(area, 4.0, Some(Ink::Surface), Some(Pen::new(Ink::Text, 1.2)));
    let middle = CLIENT.x + CLIENT.width / 2.0;
    let style = Style::new(12.0, Ink::Text).bold().anchored(Anchor::Middle);
    picture.text(at(middle, centre + 4.0), "load", style);
    for listener in listeners {
        let end = at(BALANCER.x + PADDING, *listener);
        picture.arrow(vec![at(CLIENT.x + CLIENT.width, centre), end], Pen::new(Ink::Text, 1.2));
    }
}

fn draw_edges(
    picture: &mut Picture,
    system: &System,
    listeners: &[f64],
    upstreams: &BTreeMap<&str, f64>,
    instances: &BTreeMap<&str, f64>,
) {
    for (listener, middle) in system.listeners.iter().zip(listeners) {
        for upstream in listener.upstreams.iter().filter_map(|name| upstreams.get(name.as_str())) {
            let start = at(BALANCER.x + BALANCER.width - PADDING, *middle);
            picture.arrow(vec![start, at(UPSTREAMS.x, *upstream)], Pen::new(Ink::Text, 1.2));
        }
    }
    for upstream in &system.upstreams {
        let Some(middle) = upstreams.get(upstream.name.as_str()) else { continue };
        for instance in upstream.instances.iter().filter_map(|name| instances.get(name.as_str())) {
            let start = at(UPSTREAMS.x + UPSTREAMS.width, *middle);
            picture.arrow(vec![start, at(INSTANCES.x, *instance)], Pen::new(Ink::Data, 1.2));
        }
    }
}

/// The system in PlantUML's language.
pub(super) fn plantuml(system: &System, proxy: &str) -> String {
    let mut text = String::from(
        "@startuml\nleft to right direction\nskinparam shadowing false\n\nactor \"Client\" as client\n",
    );
    let _ = writeln!(text, "node \"{}\" as balancer {{", label(proxy));
    for (index, listener) in system.listeners.iter().enumerate() {
        let listen = if listener.listen.is_empty() {
            String::new()
        } else {
            format!("\\nlisten {}", label(&listener.listen))
        };
        let _ = writeln!(text, "  component \"{}{listen}\" as listener{index}", label(&listener.address));
    }
    for (index, upstream) in system.upstreams.iter().enumerate() {
        let (name, policy) = (label(&upstream.name), label(&upstream.policy));
        let _ = writeln!(text, "  component \"upstream {name}\\n{policy}\" as upstream{index}");
    }
    text.push_str("}\n");

    let groups = groups(system);
    let mut aliases = BTreeMap::new();
    for network in frames(&groups, &system.upstreams) {
        let indent = if network.is_empty() { "" } else { "  " };
        if !network.is_empty() {
            let _ = writeln!(text, "cloud \"{}\" {{", label(network));
        }
        for (group, instances) in groups.iter().filter(|(group, _)| group.networks == network) {
            let is_framed = is_framed(group, instances);
            if is_framed {
                let _ = writeln!(text, "{indent}frame \"service {}\" {{", label(group.service));
            }
            for (name, address) in instances {
                let alias = format!("instance{}", aliases.len());
                let address =
                    if address.is_empty() { String::new() } else { format!("\\n{}", label(address)) };
                let _ = writeln!(text, "{indent}  rectangle \"{}{address}\" as {alias}", label(name));
                aliases.insert(*name, alias);
            }
            if is_framed {
                let _ = writeln!(text, "{indent}}}");
            }
        }
        if !network.is_empty() {
            text.push_str("}\n");
        }
    }

    text.push('\n');
    for (index, listener) in system.listeners.iter().enumerate() {
        let _ = writeln!(text, "client --> listener{index}");
        for name in &listener.upstreams {
            if let Some(upstream) = system.upstreams.iter().position(|upstream| upstream.name == *name) {
                let _ = writeln!(text, "listener{index} --> upstream{upstream}");
            }
        }
    }
    for (index, upstream) in system.upstreams.iter().enumerate() {
        for alias in upstream.instances.iter().filter_map(|name| aliases.get(name.as_str())) {
            let _ = writeln!(text, "upstream{index} --> {alias}");
        }
    }
    text.push_str("@enduml\n");
    text
}

/// A name within quotes, in which PlantUML finds nothing to act on.
fn label(name: &str) -> String {
    let mut label = String::new();
    for character in name.chars() {
        match character {
            '"' | '<' | '>' | '\\' | '%' | '~' | '*' | '$' | '{' | '}' => {
                let _ = write!(label, "<U+{:04X}>", u32::from(character));
            }
            control if control.is_control() => label.push(' '),
            other => label.push(other),
        }
    }
    label
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_no_plantuml() {
        assert_eq!(label("a\"\n!include x"), "a<U+0022> !include x");
        assert_eq!(label("%getenv"), "<U+0025>getenv");
    }

    #[test]
    fn a_peer_that_the_drill_does_not_run_is_shown_too() {
        let upstream =
            Upstream { name: "u".into(), policy: "round robin".into(), instances: vec!["far".into()] };
        let listener =
            Listener { address: "127.0.0.1:80".into(), listen: "80".into(), upstreams: vec!["u".into()] };
        let system = System { listeners: vec![listener], upstreams: vec![upstream], ..System::default() };
        assert!(plantuml(&system, "Evenkeel").contains(ELSEWHERE));
        assert!(draw(&system, "Evenkeel").is_some());
        assert!(draw(&System::default(), "Evenkeel").is_none());
    }
}
