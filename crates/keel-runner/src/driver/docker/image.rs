//! Images: built from a context, or pulled, and what they say about the containers made of them.

use std::{collections::HashMap, time::Duration};

use keel_engine::{
    Docker, EngineError,
    api::{
        body_try_stream,
        models::{ImageConfig, ImageInspect},
        query_parameters::{BuildImageOptionsBuilder, CreateImageOptionsBuilder},
    },
    call,
};
use keel_model::{
    ContainerHealthcheck, ContainerSpec, Handover, Healthcheck, ImageBuild, Port, Protocol, Run, Service,
    signal_number,
};
use tokio_stream::StreamExt;

use super::{ContainerDriver, container_of, context, mounted};
use crate::{
    BuildError,
    driver::{Rebuild, process::first_tcp},
};

/// How many of a failed build's last lines are shown.
const LINES_SHOWN_MAX: usize = 20;
/// How long a build or a pull may say nothing. Compilers take their time.
const SILENCE_MAX: Duration = Duration::from_secs(3600);

impl ContainerDriver {
    /// Makes sure that the image of a service is there, and takes in what it says. Builds it anew with [`Rebuild::All`]; the
    /// engine's cache decides what has to be done for that.
    pub(crate) async fn build(
        &self,
        service: &mut Service,
        rebuild: Rebuild,
        progress: &impl Fn(String),
    ) -> Result<(), BuildError> {
        let Some(spec) = container_of(service) else { return Ok(()) };
        let failed = |why: String| BuildError::Engine { service: service.name.clone(), why };
        let docker = self.engine().await.map_err(|error| failed(error.to_string()))?;
        let there = find(docker, &spec.image).await.map_err(|error| failed(error.to_string()))?;
        let image = match (&spec.build, there) {
            (_, Some(image)) if rebuild == Rebuild::Missing || spec.build.is_none() => Some(image),
            (Some(build), _) => {
                make(docker, service, spec, build, progress).await?;
                find(docker, &spec.image).await.map_err(|error| failed(error.to_string()))?
            }
            (None, _) => {
                pull(docker, &spec.image, progress).await.map_err(failed)?;
                find(docker, &spec.image).await.map_err(|error| failed(error.to_string()))?
            }
        };
        match image {
            Some(image) => take_in(service, image),
            None => return Err(failed(format!("the image {} isn't there although it was made", spec.image))),
        }
        Ok(())
    }

    /// Takes in what the image of a service says, where it is there and the engine is asked already.
    pub(crate) async fn learn(&self, service: &mut Service) {
        let (Some(spec), Some(docker)) = (container_of(service), self.0.engine.get()) else { return };
        if let Ok(Some(image)) = find(docker, &spec.image).await {
            take_in(service, image);
        }
    }
}

async fn find(docker: &Docker, name: &str) -> Result<Option<ImageInspect>, EngineError> {
    match call(docker.inspect_image(name)).await {
        Ok(image) => Ok(Some(image)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error),
    }
}

async fn make(
    docker: &Docker,
    service: &Service,
    spec: &ContainerSpec,
    build: &ImageBuild,
    progress: &impl Fn(String),
) -> Result<(), BuildError> {
    progress(format!("building {}", spec.image));
    let unreadable = |source| BuildError::Io { service: service.name.clone(), source };
    let sent = context::send(build).map_err(unreadable)?;
    let args: HashMap<String, String> =
        build.args.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    let options = BuildImageOptionsBuilder::default()
        .t(&spec.image)
        .dockerfile(&sent.dockerfile)
        .buildargs(&args)
        .target(build.target.as_deref().unwrap_or_default())
        .rm(true)
        .forcerm(true)
        .build();
    let docker = docker.clone().with_timeout(SILENCE_MAX);
    let mut steps = std::pin::pin!(docker.build_image(options, None, Some(body_try_stream(sent.body))));
    let mut last = Vec::new();
    let failed = |how: String, lines: Vec<String>| BuildError::Failed {
        service: service.name.clone(),
        command: format!("docker build -t {}", spec.image),
        how,
        lines,
    };
    loop {
        let step = match tokio::time::timeout(SILENCE_MAX, steps.next()).await {
            Ok(None) => return Ok(()),
            Ok(Some(Ok(step))) => step,
            Ok(Some(Err(error))) => {
                return Err(failed(EngineError::from(error).to_string(), last));
            }
            Err(_) => return Err(failed("the engine says nothing any more".into(), last)),
        };
        if let Some(error) = step.error_detail {
            return Err(failed(error.message.unwrap_or_else(|| "it failed".into()), last));
        }
        // A line with a progress bar comes again and again.
        let text = step.stream.or(step.status.filter(|_| step.progress_detail.is_none()));
        for line in
            text.iter().flat_map(|text| text.lines()).map(str::trim_end).filter(|line| !line.is_empty())
        {
            progress(line.to_owned());
            last.push(line.to_owned());
            if last.len() > LINES_SHOWN_MAX {
                last.remove(0);
            }
        }
    }
}

async fn pull(docker: &Docker, image: &str, progress: &impl Fn(String)) -> Result<(), String> {
    progress(format!("pulling {image}"));
    let cant = |why: &str| {
        format!(
            "the image {image} isn't in the engine and can't be pulled: {why}\n    \
             compare its name and tag with what the registry has, and `docker login` where it is private"
        )
    };
    // Without a tag or digest the engine would pull every tag there is.
    let last = image.rsplit('/').next().unwrap_or(image);
    let named = if last.contains([':', '@']) { image.to_owned() } else { format!("{image}:latest") };
    let options = CreateImageOptionsBuilder::default().from_image(&named).build();
    let docker = docker.clone().with_timeout(SILENCE_MAX);
    let mut steps = std::pin::pin!(docker.create_image(Some(options), None, None));
    let mut said = String::new();
    loop {
        let step = match tokio::time::timeout(SILENCE_MAX, steps.next()).await {
            Ok(None) => return Ok(()),
            Ok(Some(Ok(step))) => step,
            Ok(Some(Err(error))) => return Err(cant(&EngineError::from(error).to_string())),
            Err(_) => return Err(cant("the engine says nothing any more")),
        };
        if let Some(error) = step.error_detail {
            return Err(cant(&error.message.unwrap_or_default()));
        }
        let moving = step.progress_detail.is_some_and(|detail| detail.current.is_some());
        let Some(status) = step.status.filter(|_| !moving) else { continue };
        let line = step.id.map_or(status.clone(), |id| format!("{id}: {status}"));
        if line != said {
            progress(line.clone());
            said = line;
        }
    }
}

/// Takes in what only the image says: its healthcheck, stop signal, volumes and ports, where the files leave them open,
/// and its content, so that another one asks for new instances.
fn take_in(service: &mut Service, image: ImageInspect) {
    let ImageInspect { id, config, .. } = image;
    let config = config.unwrap_or_default();
    let holds_data =
        config.volumes.iter().flatten().any(|target| !mounted(service).contains(target.as_str()));
    let lists_tcp = first_tcp(&service.ports).is_some();
    let known = service.healthcheck.clone();
    let Run::Container(spec) = &mut service.run else { return };
    if holds_data {
        spec.handover = Handover::OneAtATime;
    }
    if let (None, Some(signal)) = (spec.stop_signal, config.stop_signal.as_deref().and_then(signal_number)) {
        service.stop.signal = signal;
    }
    service.healthcheck = healthcheck(&spec.healthcheck, &config, known);
    spec.image_id.clone_from(&id);
    if !lists_tcp {
        service.ports.extend(config.exposed_ports.iter().flatten().filter_map(|text| port(text)));
    }
    // It may have been taken in before: `start` and `scale` go by what the last `up` left.
    let of_files = service.digest.split(' ').next().unwrap_or_default();
    service.digest = format!("{of_files} {}", id.unwrap_or_default());
}

/// Joins the file's healthcheck with the image's, as the engine will.
fn healthcheck(
    own: &ContainerHealthcheck,
    image: &ImageConfig,
    known: Option<Healthcheck>,
) -> Option<Healthcheck> {
    let given = image.healthcheck.as_ref();
    let (test, interval, timeout, retries, start_period, start_interval) = match own {
        ContainerHealthcheck::Off => return None,
        ContainerHealthcheck::Image => (None, None, None, None, None, None),
        ContainerHealthcheck::Own { test, interval, timeout, retries, start_period, start_interval } => {
            (test.clone(), *interval, *timeout, *retries, *start_period, *start_interval)
        }
    };
    let test = test.or_else(|| given?.test.clone()).and_then(argv);
    let Some(argv) = test else { return known.filter(|_| given.is_none()) };
    let nanos = |value: Option<i64>| {
        value.and_then(|value| u64::try_from(value).ok()).filter(|value| *value > 0).map(Duration::from_nanos)
    };
    let pick = |own: Option<Duration>, given: Option<i64>, default: u64| {
        own.filter(|own| !own.is_zero()).or(nanos(given)).unwrap_or(Duration::from_secs(default))
    };
    let retries = retries.filter(|retries| *retries > 0);
    let given_retries =
        given.and_then(|given| u32::try_from(given.retries?).ok()).filter(|retries| *retries > 0);
    Some(Healthcheck {
        argv,
        interval: pick(interval, given.and_then(|given| given.interval), 30),
        timeout: pick(timeout, given.and_then(|given| given.timeout), 30),
        retries: retries.or(given_retries).unwrap_or(3),
        start_period: pick(start_period, given.and_then(|given| given.start_period), 0),
        start_interval: start_interval
            .filter(|own| !own.is_zero())
            .or_else(|| nanos(given.and_then(|given| given.start_interval))),
    })
}

/// Reads `["CMD", ..]` and `["CMD-SHELL", line]`.
fn argv(test: Vec<String>) -> Option<Vec<String>> {
    let mut words = test.into_iter();
    match words.next()?.as_str() {
        "CMD" => Some(words.collect()),
        "CMD-SHELL" => Some(["/bin/sh".to_owned(), "-c".to_owned()].into_iter().chain(words).collect()),
        _ => None,
    }
}

/// Reads `5432/tcp`.
fn port(text: &str) -> Option<Port> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return None,
    };
    Some(Port { number: number.parse().ok()?, protocol })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(text: &str) -> ImageConfig {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_files_healthcheck_goes_before_the_images() {
        let postgres =
            image(r#"{"Healthcheck": {"Test": ["CMD-SHELL", "pg_isready"], "Interval": 2000000000}}"#);
        let check = healthcheck(&ContainerHealthcheck::Image, &postgres, None).unwrap();
        assert_eq!(check.argv, ["/bin/sh", "-c", "pg_isready"]);
        assert_eq!((check.interval.as_secs(), check.timeout.as_secs(), check.retries), (2, 30, 3));
        let own = ContainerHealthcheck::Own {
            test: Some(vec!["CMD".into(), "true".into()]),
            interval: None,
            timeout: Some(Duration::from_secs(1)),
            retries: Some(7),
            start_period: None,
            start_interval: None,
        };
        let check = healthcheck(&own, &postgres, None).unwrap();
        assert_eq!(check.argv, ["true"]);
        assert_eq!((check.interval.as_secs(), check.timeout.as_secs(), check.retries), (2, 1, 7));
        assert_eq!(healthcheck(&ContainerHealthcheck::Off, &postgres, None), None);
        assert_eq!(healthcheck(&ContainerHealthcheck::Image, &image("{}"), None), None);
    }

    #[test]
    fn reads_what_images_say() {
        assert_eq!(port("5432/tcp"), Some(Port { number: 5432, protocol: Protocol::Tcp }));
        assert_eq!(port("53/udp"), Some(Port { number: 53, protocol: Protocol::Udp }));
        assert_eq!(port("9/sctp"), None);
    }
}
