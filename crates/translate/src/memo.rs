// SPDX-License-Identifier: Apache-2.0
//! Objects that could be read, each with what it became the last time.
//!
//! Most of a large state comes from objects that each become one resource by themselves: nodes, services,
//! endpoints and pods. As long as such an object is the same, so is its resource, down to the allocation;
//! whoever compares two states sees that without looking inside.

use std::{
    ops::Deref,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use weft_api::object::{Decoded, Object};
use weft_ir::{IdentityNumber, Resource, ResourceKey};

use crate::identity::{Identities, Labels};

/// A resource under its key.
pub(crate) type Keyed = (ResourceKey, Arc<Resource>);

/// An object that could be read.
#[derive(Debug)]
pub struct Good {
    decoded: Decoded<Object>,
    plain: OnceLock<Option<Keyed>>,
    placed: Mutex<Option<Placed>>,
}

/// A pod's resource, and all that it depends on besides the pod.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub(crate) namespace: Arc<Labels>,
    pub(crate) cluster: Arc<str>,
    pub(crate) number: IdentityNumber,
    pub(crate) identity: Arc<Resource>,
    pub(crate) keyed: Keyed,
}

impl Good {
    pub(crate) fn new(decoded: Decoded<Object>) -> Good {
        Good { decoded, plain: OnceLock::new(), placed: Mutex::new(None) }
    }

    /// The resource of an object that depends on nothing else.
    pub(crate) fn plain(&self, make: impl FnOnce() -> Option<Resource>) -> Option<&Keyed> {
        let keyed = || make().map(|resource| (resource.key(), Arc::new(resource)));
        self.plain.get_or_init(keyed).as_ref()
    }

    /// The resource of a pod, made anew only where something that it depends on is different.
    pub(crate) fn placed<E>(
        &self,
        namespace: &Arc<Labels>,
        cluster: &Arc<str>,
        identities: &mut Identities,
        make: impl FnOnce(&mut Identities) -> Result<Placed, E>,
    ) -> Result<Keyed, E> {
        let mut memo = self.placed.lock().unwrap_or_else(PoisonError::into_inner);
        let same = memo.as_ref().filter(|placed| {
            placed.namespace == *namespace
                && placed.cluster == *cluster
                && identities.reuse(placed.number, &placed.identity)
        });
        if let Some(placed) = same {
            return Ok(placed.keyed.clone());
        }
        Ok(memo.insert(make(identities)?).keyed.clone())
    }
}

impl PartialEq for Good {
    fn eq(&self, other: &Good) -> bool {
        std::ptr::eq(self, other) || self.decoded == other.decoded
    }
}

impl Deref for Good {
    type Target = Decoded<Object>;

    fn deref(&self) -> &Decoded<Object> {
        &self.decoded
    }
}
