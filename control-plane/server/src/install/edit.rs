//! Values into objects.
//!
//! INVARIANT: every place that holds a value of the base is found by where it is in its kind. A place that is not there is an
//! error, so that a changed base is noticed.

use serde_json::Value;

use super::{InstallError, NAMESPACE, Settings};

/// Sets all values.
pub(super) fn set(mut objects: Vec<Value>, settings: &Settings) -> Result<Vec<Value>, InstallError> {
    for object in &mut objects {
        let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
        if let Some(namespace) = object.pointer_mut("/metadata/namespace") {
            replace(namespace, &settings.namespace)?;
        }
        match kind.as_str() {
            "Namespace" => replace(place(object, "/metadata/name")?, &settings.namespace)?,
            "ClusterRoleBinding" | "RoleBinding" => {
                for subject in list(object, "/subjects")? {
                    replace(place(subject, "/namespace")?, &settings.namespace)?;
                }
            }
            "AuthorizationPolicy" => sources(object, &settings.namespace)?,
            "Deployment" => image(object, &settings.image)?,
            _ => {}
        }
        // Cluster-scoped objects of two installations would be one.
        if matches!(kind.as_str(), "ClusterRole" | "ClusterRoleBinding") && settings.namespace != NAMESPACE {
            let name = format!("tidegate-{}", settings.namespace);
            *place(object, "/metadata/name")? = Value::from(name.as_str());
            if kind == "ClusterRoleBinding" {
                *place(object, "/roleRef/name")? = Value::from(name.as_str());
            }
        }
    }
    Ok(objects)
}

/// The namespace among the callers that a policy lets in.
fn sources(policy: &mut Value, namespace: &str) -> Result<(), InstallError> {
    for rule in list(policy, "/spec/rules")? {
        let Some(from) = rule.get_mut("from").and_then(Value::as_array_mut) else { continue };
        for source in from {
            let Some(namespaces) = source.pointer_mut("/source/namespaces").and_then(Value::as_array_mut)
            else {
                continue;
            };
            for name in namespaces.iter_mut().filter(|name| *name == NAMESPACE) {
                *name = Value::from(namespace);
            }
        }
    }
    Ok(())
}

fn image(deployment: &mut Value, image: &str) -> Result<(), InstallError> {
    let containers = list(deployment, "/spec/template/spec/containers")?;
    let ours =
        containers.iter_mut().find(|container| container.get("name") == Some(&Value::from("tidegate")));
    let ours = ours.ok_or_else(|| missing("the container `tidegate`"))?;
    *place(ours, "/image")? = Value::from(image);
    Ok(())
}

/// Puts another namespace where ours is.
fn replace(namespace: &mut Value, by: &str) -> Result<(), InstallError> {
    if namespace != NAMESPACE {
        return Err(InstallError::Base(format!("`{namespace}` is another namespace than `{NAMESPACE}`")));
    }
    *namespace = Value::from(by);
    Ok(())
}

fn place<'o>(object: &'o mut Value, pointer: &str) -> Result<&'o mut Value, InstallError> {
    object.pointer_mut(pointer).ok_or_else(|| missing(pointer))
}

fn list<'o>(object: &'o mut Value, pointer: &str) -> Result<&'o mut Vec<Value>, InstallError> {
    place(object, pointer)?.as_array_mut().ok_or_else(|| missing(pointer))
}

fn missing(what: &str) -> InstallError {
    InstallError::Base(format!("`{what}` is missing"))
}
