//! Deployments and Jobs: how many instances of a service run, and how one replaces another.

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
        batch::v1::{Job, JobSpec},
        core::v1::{PodSpec, PodTemplateSpec},
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use keel_compose::{Service, UpdateOrder};
use keel_model::{DependencyCondition, RestartCondition};

use super::{
    Writer,
    container::Probes,
    object::{Object, label, label_selector, metadata, selector, some},
    seconds_i32,
};

/// The first version whose budgets have their final form.
const BUDGET_V1: u32 = 21;

impl<'a> Writer<'a> {
    pub(super) fn deployment(&mut self, service: &'a Service) {
        self.name_what_a_deployment_has_not(service);
        let replicas = service.replicas();
        let pod = self.pod(service, Probes::Written);
        let strategy = if pod.writes_a_volume { recreate() } else { self.strategy(service) };
        let project = self.project.name.as_str();
        let name = service.name.value.as_str();
        let delay = service.deploy_update.as_ref().and_then(|update| update.delay);
        let deployment = Deployment {
            metadata: metadata(project, name),
            spec: Some(DeploymentSpec {
                replicas: Some(i32::try_from(replicas).unwrap_or(i32::MAX)),
                selector: label_selector(project, name),
                strategy: Some(strategy),
                min_ready_seconds: delay.filter(|delay| !delay.is_zero()).map(seconds_i32),
                template: self.template(service, pod.spec),
                ..DeploymentSpec::default()
            }),
            status: None,
        };
        self.export.objects.push(Object::of(&deployment));
        if replicas > 1 {
            self.disruption_budget(name);
        }
    }

    pub(super) fn job(&mut self, service: &'a Service) {
        let mut pod = self.pod(service, Probes::None).spec;
        let restart = match service.restart_policy().condition {
            RestartCondition::Never => "Never",
            RestartCondition::OnFailure | RestartCondition::Always => "OnFailure",
        };
        pod.restart_policy = Some(restart.into());
        let attempts = service.restart_policy().attempts_max;
        let job = Job {
            metadata: metadata(&self.project.name, &service.name.value),
            spec: Some(JobSpec {
                backoff_limit: attempts.and_then(|attempts| i32::try_from(attempts).ok()),
                template: self.template(service, pod),
                ..JobSpec::default()
            }),
            status: None,
        };
        self.export.objects.push(Object::of(&job));
    }

    /// Lets a drained node take one instance at a time.
    pub(super) fn disruption_budget(&mut self, name: &str) {
        let project = self.project.name.as_str();
        let budget = PodDisruptionBudget {
            metadata: metadata(project, name),
            spec: Some(PodDisruptionBudgetSpec {
                max_unavailable: Some(IntOrString::Int(1)),
                selector: Some(label_selector(project, name)),
                ..PodDisruptionBudgetSpec::default()
            }),
            status: None,
        };
        let object = Object::of(&budget);
        let is_old = self.options.minor_version < BUDGET_V1;
        self.export.objects.push(if is_old { object.in_version("policy/v1beta1") } else { object });
    }

    fn template(&self, service: &Service, pod: PodSpec) -> PodTemplateSpec {
        let mut labels = selector(&self.project.name, &service.name.value);
        for alias in self.aliases_of(service) {
            labels.insert(alias_label(&alias), "member".into());
        }
        let annotations = service.labels.iter().filter(|(key, _)| is_annotation(key));
        let annotations = annotations.map(|(key, value)| (key.clone(), value.value.clone())).collect();
        let metadata =
            ObjectMeta { labels: Some(labels), annotations: some(annotations), ..ObjectMeta::default() };
        PodTemplateSpec { metadata: Some(metadata), spec: Some(pod) }
    }

    /// The new instance comes first, as under Evenkeel, unless the file says otherwise.
    fn strategy(&mut self, service: &Service) -> DeploymentStrategy {
        let update = service.deploy_update.as_ref();
        let at_once = match update.and_then(|update| update.parallelism) {
            Some(0) => IntOrString::String("100%".into()),
            Some(count) => IntOrString::Int(i32::try_from(count).unwrap_or(i32::MAX)),
            None => IntOrString::Int(1),
        };
        let none = IntOrString::Int(0);
        let (surge, unavailable) = match update.and_then(|update| update.order) {
            Some(UpdateOrder::StopFirst) => (none, at_once),
            Some(UpdateOrder::StartFirst) | None => (at_once, none),
        };
        DeploymentStrategy {
            type_: Some("RollingUpdate".into()),
            rolling_update: Some(RollingUpdateDeployment {
                max_surge: Some(surge),
                max_unavailable: Some(unavailable),
            }),
        }
    }

    fn name_what_a_deployment_has_not(&mut self, service: &Service) {
        let policy = service.restart.as_ref().or(service.deploy_restart.as_ref());
        if let Some(policy) = policy.filter(|policy| policy.value.condition != RestartCondition::Always) {
            self.cannot_say(policy.span, "a Deployment restarts its pods however they end", "");
        }
        if let Some(span) = service.deploy_global {
            let message = "`mode: global` becomes one instance: only a DaemonSet runs one on each node";
            self.cannot_say(span, message, "change the kind in the manifest, where that is wanted");
        }
        let action = service.deploy_update.as_ref().and_then(|update| update.failure_action.as_ref());
        if let Some(action) = action.filter(|action| action.value != "pause") {
            let message = format!("`failure_action: {}`: a Deployment stops where it is", action.value);
            self.cannot_say(action.span, message, "`kubectl rollout undo` goes back");
        }
        for on in &service.depends_on {
            let awaited = match on.condition {
                DependencyCondition::Started => continue,
                DependencyCondition::Healthy => "is healthy",
                DependencyCondition::Completed => "has ended",
            };
            let message =
                format!("pods don't wait until `{}` {awaited}: all start at once", on.service.value);
            self.cannot_say(on.service.span, message, "a pod that ends for want of it is started again");
        }
    }
}

/// Two that write to one volume would spoil it, and a volume for one node holds the next one up: the old one ends first.
fn recreate() -> DeploymentStrategy {
    DeploymentStrategy { type_: Some("Recreate".into()), rolling_update: None }
}

/// The label of pods that answer to a further name.
pub(super) fn alias_label(alias: &str) -> String {
    format!("evenkeel-alias/{}", label(alias))
}

/// Labels that Compose or Evenkeel put there say nothing in a cluster, and a key has one slash at most.
fn is_annotation(key: &str) -> bool {
    let (prefix, name) = key.rsplit_once('/').unwrap_or(("", key));
    let is_own = key.starts_with("com.docker.") || key == "evenkeel.role";
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_word = |text: &str| {
        text.chars().all(allowed)
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.ends_with(|c: char| c.is_ascii_alphanumeric())
    };
    !is_own && name.len() <= 63 && is_word(name) && (prefix.is_empty() || is_word(prefix))
}
