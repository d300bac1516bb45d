//! What all rules are checked against: mesh, issuers and Callers.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::callers::{self, Caller};
use crate::context::Context;
use crate::diagnostic::{Code, Diagnostic};
use crate::issuers::{self, TrustedIssuer};
use crate::mesh::{self, Mesh, Reaches};
use crate::objects::{Object, Objects};
use crate::place::{Findings, Kind};
use crate::when::Cache;
use crate::without_place;

/// Mesh, issuers and Callers, and what was found in checking them.
#[derive(Debug, Default)]
pub(super) struct Base {
    /// What it was made of.
    objects: Objects,
    now: Option<i64>,
    mesh: (Option<Mesh>, Vec<Diagnostic>),
    /// Of this mesh.
    reaches: Reaches,
    issuers: (BTreeMap<String, Option<TrustedIssuer>>, Vec<Diagnostic>),
    callers: (BTreeMap<String, Option<Caller>>, Vec<Diagnostic>),
}

/// What has not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unchanged {
    /// The values of the mesh, of all issuers and of all Callers.
    pub(super) values: bool,
    /// Which objects are there and broken.
    pub(super) broken: bool,
}

/// Whether these are the same objects in memory. Objects never change.
fn are_same<S>(a: &[Arc<Object<S>>], b: &[Arc<Object<S>>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
}

// === impl Base ===

impl Base {
    /// Checks what rests on something that is another now. `objects`: meshes, issuers, Callers and what is broken, of all
    /// files.
    pub(super) fn update<'o>(
        &mut self,
        objects: impl Iterator<Item = &'o Objects>,
        now: Option<i64>,
        cache: &Cache,
    ) -> Unchanged {
        let objects = gather(objects);
        let same_meshes = are_same(&objects.meshes, &self.objects.meshes);
        let same_issuers = are_same(&objects.issuers, &self.objects.issuers) && now == self.now;
        let same_callers = are_same(&objects.callers, &self.objects.callers);
        let broken = objects.broken == self.objects.broken;
        let mut unchanged = Unchanged { values: true, broken };
        self.objects = objects;
        self.now = now;
        // The first time nothing is there, and nothing was made of it: which says that there is no Mesh.
        if !same_meshes || !broken || self.mesh.0.is_none() {
            let mesh = check_mesh(&self.objects);
            unchanged.values &= mesh.0 == self.mesh.0;
            self.mesh = mesh;
            self.reaches = Reaches::default();
        }
        if !same_issuers {
            let mut findings = Findings::default();
            let issuers = issuers::check(&self.objects.issuers, now, &mut findings);
            unchanged.values &= issuers == self.issuers.0;
            self.issuers = (issuers, findings.into_found());
        }
        if !same_callers || !unchanged.values || !broken {
            let mut findings = Findings::default();
            let none = BTreeMap::new();
            let context = Context { callers: &none, ..self.context(cache) };
            let callers = callers::check(&self.objects.callers, &context, &mut findings);
            unchanged.values &= callers == self.callers.0;
            self.callers = (callers, findings.into_found());
        }
        unchanged
    }

    pub(super) fn context<'c>(&'c self, cache: &'c Cache) -> Context<'c> {
        Context {
            mesh: self.mesh.0.as_ref(),
            broken: &self.objects.broken,
            issuers: &self.issuers.0,
            callers: &self.callers.0,
            cache,
            reaches: &self.reaches,
        }
    }

    pub(super) fn mesh(&self) -> Option<&Mesh> {
        self.mesh.0.as_ref()
    }

    pub(super) fn issuers(&self) -> &BTreeMap<String, Option<TrustedIssuer>> {
        &self.issuers.0
    }

    /// All that was found.
    pub(super) fn tell(&self, findings: &mut Findings) {
        for found in [&self.mesh.1, &self.issuers.1, &self.callers.1] {
            findings.extend(found.iter().cloned());
        }
    }
}

fn gather<'o>(all: impl Iterator<Item = &'o Objects>) -> Objects {
    let mut objects = Objects::default();
    for more in all {
        objects.meshes.extend(more.meshes.iter().map(Arc::clone));
        objects.issuers.extend(more.issuers.iter().map(Arc::clone));
        objects.callers.extend(more.callers.iter().map(Arc::clone));
        objects.broken.extend(more.broken.clone());
    }
    objects.sort();
    objects
}

fn check_mesh(objects: &Objects) -> (Option<Mesh>, Vec<Diagnostic>) {
    let mut findings = Findings::default();
    let mesh = mesh::check(&objects.meshes, &mut findings);
    if objects.meshes.is_empty() && !objects.broken.has_any(Kind::Mesh) {
        findings.push(without_place(
            Code::MeshCount,
            "there is no Mesh",
            "rules are compiled for the workloads of a mesh",
            "add an object of the kind `Mesh` with its trust domain, root namespace and workloads",
        ));
    }
    (mesh, findings.into_found())
}
