//! Objects as files: one YAML document each, and the kustomization.yaml that names them.

use std::collections::BTreeMap;

use k8s_openapi::{
    Metadata, Resource,
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};
use serde::Serialize;
use serde_json::Value;

/// The longest DNS label.
const LABEL_CHARS_MAX: usize = 63;

/// One object of the cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// The file's name: kind and name.
    pub file: String,
    /// Whether the file may be read by its owner alone.
    pub secret: bool,
    value: Value,
}

impl Object {
    /// Makes one of a typed object.
    pub(super) fn of<K>(object: &K) -> Self
    where
        K: Resource + Metadata<Ty = ObjectMeta> + Serialize,
    {
        let name = object.metadata().name.as_deref().unwrap_or_default();
        let value = serde_json::to_value(object).unwrap_or_default();
        Self {
            file: format!("{}-{name}.yaml", K::KIND.to_ascii_lowercase()),
            secret: K::KIND == "Secret",
            value,
        }
    }

    /// Says it in another version of its group, for a cluster that doesn't know the current one.
    pub(super) fn in_version(mut self, version: &str) -> Self {
        if let Some(field) = self.value.get_mut("apiVersion") {
            *field = version.into();
        }
        self
    }

    /// Writes it as YAML.
    ///
    /// # Errors
    /// As the serialiser has them.
    pub fn yaml(&self) -> Result<String, serde_saphyr::ser::Error> {
        serde_saphyr::to_string(&self.value)
    }
}

/// Writes the kustomization.yaml of these objects.
///
/// # Errors
/// As the serialiser has them.
pub fn kustomization(objects: &[Object]) -> Result<String, serde_saphyr::ser::Error> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Kustomization<'a> {
        api_version: &'a str,
        kind: &'a str,
        resources: Vec<&'a str>,
    }
    serde_saphyr::to_string(&Kustomization {
        api_version: "kustomize.config.k8s.io/v1beta1",
        kind: "Kustomization",
        resources: objects.iter().map(|object| object.file.as_str()).collect(),
    })
}

/// Makes a DNS label of a name: lower case, digits and dashes.
pub(super) fn label(name: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let label: String = name.chars().map(allowed).take(LABEL_CHARS_MAX).collect();
    let label = label.trim_matches('-');
    match label.starts_with(|c: char| c.is_ascii_digit()) {
        // A Service's name begins with a letter.
        true => format!("s{label}"),
        false => label.to_owned(),
    }
}

/// The labels that tell whose pods these are.
pub(super) fn selector(project: &str, name: &str) -> BTreeMap<String, String> {
    let labels = [("app.kubernetes.io/name", label(name)), ("app.kubernetes.io/part-of", label(project))];
    labels.map(|(key, value)| (key.to_owned(), value)).into()
}

pub(super) fn label_selector(project: &str, name: &str) -> LabelSelector {
    LabelSelector { match_labels: Some(selector(project, name)), ..LabelSelector::default() }
}

/// Metadata of an object that belongs to a service.
pub(super) fn metadata(project: &str, name: &str) -> ObjectMeta {
    let mut labels = selector(project, name);
    labels.insert("app.kubernetes.io/managed-by".into(), "evenkeel".into());
    ObjectMeta { name: Some(label(name)), labels: Some(labels), ..ObjectMeta::default() }
}

/// `None` for an empty list or map, which is then left out.
pub(super) fn some<T: IntoIterator>(values: T) -> Option<T>
where
    for<'a> &'a T: IntoIterator,
{
    let has_any = (&values).into_iter().next().is_some();
    has_any.then_some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makes_labels_of_names() {
        let check = |name: &str, expect: &str| assert_eq!(label(name), expect, "{name}");
        check("app", "app");
        check("my_App.v2", "my-app-v2");
        check("_db_", "db");
        check("1st", "s1st");
        check(&"a".repeat(70), &"a".repeat(63));
    }
}
