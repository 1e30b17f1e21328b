// SPDX-License-Identifier: Apache-2.0
//! A store, its translation, and what all that was told of it comes to.

#![allow(dead_code, unreachable_pub, reason = "not every test needs all of it")]

use std::{collections::BTreeMap, sync::Arc};

use weft_api::{object::ObjectKey, status::Status};
use weft_ir::{Resource, ResourceKey};
use weft_translate::{
    Delta, Identities, IdentityRecord, ObjectStatus, Problem, Store, Translation, Translator,
};

pub struct Mesh {
    pub store: Store,
    pub translation: Translation,
    pub resources: BTreeMap<ResourceKey, Resource>,
    pub statuses: BTreeMap<ObjectKey, Arc<Status>>,
    pub problems: Vec<Problem>,
    /// Of the identities, from the first on.
    pub records: Vec<IdentityRecord>,
}

impl Mesh {
    pub fn new(records: Vec<IdentityRecord>) -> Mesh {
        let identities = Identities::replay(records.iter().cloned()).unwrap();
        Mesh {
            store: Store::default(),
            translation: Translation::new(Translator::default(), identities),
            resources: BTreeMap::new(),
            statuses: BTreeMap::new(),
            problems: Vec::new(),
            records,
        }
    }

    /// A mesh of these texts.
    pub fn of<'a>(texts: impl IntoIterator<Item = (&'a str, &'a str)>) -> Mesh {
        let mut mesh = Mesh::new(Vec::new());
        mesh.store.apply_all(texts, []);
        mesh.update(0);
        mesh
    }

    /// Translates what changed, and takes what is told.
    pub fn update(&mut self, now: u64) -> Delta {
        let delta = self.translation.update(&mut self.store, now);
        for resource in &delta.change.upserts {
            self.resources.insert(resource.key(), resource.clone());
        }
        for key in &delta.change.removes {
            assert!(self.resources.remove(key).is_some(), "{key} was never told of");
        }
        for (object, status) in delta.statuses.iter().cloned() {
            match status {
                Some(status) => drop(self.statuses.insert(object, status)),
                None => assert!(self.statuses.remove(&object).is_some(), "{object} had no status"),
            }
        }
        if let Some(problems) = &delta.problems {
            self.problems.clone_from(problems);
        }
        self.records.extend(delta.identities.iter().cloned());
        delta
    }

    /// The statuses as they were told.
    pub fn told(&self) -> Vec<ObjectStatus> {
        let told = self.statuses.iter();
        told.map(|(object, status)| ObjectStatus { object: object.clone(), status: status.clone() }).collect()
    }
}
