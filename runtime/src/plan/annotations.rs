//! Annotations and environment that crun takes orders from.
//!
//! `docker run --annotation run.oci.seccomp.plugins=PATH` makes crun load a library as root of the VM, and
//! `run.oci.handler`, `run.oci.hooks.stdout` and others are no better; so is crun's own `RUN_OCI_*` environment.

use serde_json::Value;

use crate::bundle::Spec;

/// Prefix of the annotations that crun obeys.
const ANNOTATION_PREFIX: &str = "run.oci.";
/// Prefix of the environment variables that crun obeys.
pub const VARIABLE_PREFIX: &str = "RUN_OCI_";

/// Takes every annotation for crun out of `spec`.
pub fn strip(spec: &mut Spec) {
    if let Some(annotations) = spec.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.retain(|name, _| !name.starts_with(ANNOTATION_PREFIX));
    }
}

/// Takes every variable for crun out of the environment of a `process` object. Gives whether there was one.
pub fn strip_environment(process: &mut Spec) -> bool {
    let Some(variables) = process.get_mut("env").and_then(Value::as_array_mut) else { return false };
    let before = variables.len();
    variables.retain(|variable| !variable.as_str().is_some_and(|text| text.starts_with(VARIABLE_PREFIX)));
    variables.len() != before
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_cruns_annotations_are_dropped() {
        let mut spec =
            json!({"annotations": {"run.oci.handler": "krun", "com.example": "kept", "run.oc": "kept"}})
                .as_object()
                .unwrap()
                .clone();
        strip(&mut spec);
        assert_eq!(Value::Object(spec), json!({"annotations": {"com.example": "kept", "run.oc": "kept"}}));
    }

    #[test]
    fn only_cruns_variables_are_dropped() {
        let mut process = json!({"env": ["RUN_OCI_X=1", "PATH=/bin"]}).as_object().unwrap().clone();
        assert!(strip_environment(&mut process));
        assert_eq!(Value::Object(process.clone()), json!({"env": ["PATH=/bin"]}));
        assert!(!strip_environment(&mut process));
    }
}
