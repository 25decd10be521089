//! Manifests for Kubernetes, as files for `kubectl apply -k`.

use keel_diag::Diagnostic;
use keel_kube::export::{Object, Options, Published, Seat, export, kustomization};

use super::{Exported, ExportedFile, Part, Readers, Reading};
use crate::project::ProjectOptions;

/// What the files don't say.
pub type KubernetesOptions = Options;

impl ProjectOptions {
    /// Writes the project as manifests for Kubernetes.
    pub fn export_kubernetes(&self, options: &KubernetesOptions) -> Exported {
        let mut exported = Exported::default();
        let Some(Reading { project, seat }) = self.read_for_cluster(&mut exported) else { return exported };
        let seat = seat.as_ref().map(|seat| Seat {
            service: seat.service.as_ref().and_then(|name| project.services.get(name)),
            files: seat.files.clone(),
            arguments: seat.arguments.clone(),
            listens: seat.listens(),
            published: seat.published(&project).iter().filter_map(published).collect(),
            upstreams: seat.upstreams(),
        });
        let written = export(&project, seat.as_ref(), options);
        exported.diagnostics.extend(written.diagnostics);
        match files(&written.objects) {
            Ok(files) => exported.files = files,
            Err(error) => {
                let message = format!("a manifest can't be written: {error}");
                exported.diagnostics.push(Diagnostic::error("export::yaml", message));
            }
        }
        exported
    }
}

/// One file for each object, and the one that names them.
fn files(objects: &[Object]) -> Result<Vec<ExportedFile>, serde_saphyr::ser::Error> {
    let mut files = Vec::new();
    for object in objects {
        let readers = if object.secret { Readers::Owner } else { Readers::All };
        let path = object.file.clone().into();
        files.push(ExportedFile { path, text: object.yaml()?, readers, part: Part::Object });
    }
    let (path, text) = ("kustomization.yaml".into(), kustomization(objects)?);
    files.push(ExportedFile { path, text, readers: Readers::All, part: Part::Index });
    Ok(files)
}

fn published(mapping: &keel_compose::PortMapping) -> Option<Published> {
    if mapping.protocol != keel_model::Protocol::Tcp {
        return None;
    }
    Some(Published {
        span: mapping.span,
        port: mapping.published?.first,
        target: mapping.target,
        local: mapping.host_ip.is_some_and(|ip| ip.is_loopback()),
    })
}
