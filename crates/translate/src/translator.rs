// SPDX-License-Identifier: Apache-2.0
//! The whole translation: a store of objects becomes the state of the mesh and the statuses.

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;
use weft_api::{
    core::Pod,
    object::{Decoded, Kind, Object, ObjectKey},
    status::{Condition, ConditionsStatus, GatewayStatus, Status},
};
use weft_gateway_api::{Input, Item};
use weft_ir::{MeshDefaults, ObjectName, Resource, ResourceKey};

use crate::{
    identity::{Exhausted, Identities, Labels},
    memo::{Good, Keyed, Placed},
    nodes, policy, ratelimit,
    store::{Entry, Problem, Refused, Store},
    workload,
};

mod refused;

/// The status of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectStatus {
    /// The object.
    pub object: ObjectKey,
    /// What is to be written.
    pub status: Status,
}

impl Serialize for ObjectStatus {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut fields = serializer.serialize_struct("ObjectStatus", 2)?;
        fields.serialize_field("object", &self.object.to_string())?;
        fields.serialize_field("status", &self.status)?;
        fields.end()
    }
}

/// What comes of a store.
#[derive(Clone, Debug, Default)]
pub struct Translation {
    /// The state. What comes of an object that is the same as in the last translation of the same store
    /// is the same allocation.
    pub resources: BTreeMap<ResourceKey, Arc<Resource>>,
    /// The statuses, in the order of the objects.
    pub statuses: Vec<ObjectStatus>,
    /// What is wrong and in no status.
    pub problems: Vec<Problem>,
}

/// The settings of the translation.
#[derive(Clone, Debug)]
pub struct Translator {
    /// The cluster's name, which is a label of every identity.
    pub cluster: Arc<str>,
    /// Settings for every node.
    pub defaults: MeshDefaults,
}

impl Default for Translator {
    /// The cluster `default`, as Cilium names it.
    fn default() -> Translator {
        Translator { cluster: "default".into(), defaults: MeshDefaults::default() }
    }
}

impl Translator {
    /// Translates every object. `now` is in seconds since 1970 and moves the identities along;
    /// apart from them the result depends on the store alone.
    pub fn translate(&self, store: &Store, identities: &mut Identities, now: u64) -> Translation {
        let mut work = Work { store, translation: Translation::default() };
        work.translation.problems = store.problems().cloned().collect();
        work.bulk(&self.cluster, identities, now);
        work.add(Resource::MeshDefaults(self.defaults.clone()));
        work.policies();
        work.rate_limits();
        work.gateway_api();
        work.refused();
        let mut translation = work.translation;
        translation.statuses.sort_by(|a, b| a.object.cmp(&b.object));
        translation
    }
}

struct Work<'a> {
    store: &'a Store,
    translation: Translation,
}

impl<'a> Work<'a> {
    fn add(&mut self, resource: Resource) {
        self.translation.resources.insert(resource.key(), Arc::new(resource));
    }

    fn problem(&mut self, key: &ObjectKey, message: impl Into<Arc<str>>) {
        let Some(entry) = self.store.objects().get(key) else { return };
        let (source, line) = entry.place();
        self.translation.problems.push(Problem {
            source: source.clone(),
            line,
            object: Some(key.clone()),
            message: message.into(),
            unreadable: false,
        });
    }

    /// Every valid object of a kind.
    fn good(&self, kind: Kind) -> impl Iterator<Item = (&'a ObjectKey, &'a Good, &'a Entry)> + use<'a> {
        let objects = self.store.of_kind(kind);
        objects.filter_map(|(key, entry)| Some((key, entry.good()?, entry)))
    }

    /// The resources of objects that become one each, together in one step: they are nearly in order.
    fn bulk(&mut self, cluster: &Arc<str>, identities: &mut Identities, now: u64) {
        identities.begin(now);
        let workloads = self.workloads(cluster, identities);
        identities.finish(now);
        let mut bulk: Vec<Keyed> = Vec::with_capacity(self.store.objects().len() + workloads.len());
        self.plain_objects(Kind::EndpointSlice, &mut bulk);
        bulk.extend(identities.used().map(|identity| (identity.key(), identity.clone())));
        self.plain_objects(Kind::Node, &mut bulk);
        self.plain_objects(Kind::Service, &mut bulk);
        bulk.extend(workloads);
        self.translation.resources = bulk.into_iter().collect();
    }

    fn workloads(&mut self, cluster: &Arc<str>, identities: &mut Identities) -> Vec<Keyed> {
        let mut workloads = Vec::new();
        // Pods come by namespace.
        let mut namespace: Option<(Arc<str>, Arc<Labels>)> = None;
        for (key, good, _) in self.good(Kind::Pod) {
            let Object::Pod(pod) = &good.object else { continue };
            if !workload::is_live(pod) {
                continue;
            }
            let labels = match &namespace {
                Some((name, labels)) if *name == pod.metadata.namespace => labels.clone(),
                Some(_) | None => {
                    let labels = Arc::new(namespace_labels(self.store, &pod.metadata.namespace));
                    namespace = Some((pod.metadata.namespace.clone(), labels.clone()));
                    labels
                }
            };
            let placed =
                good.placed(&labels, cluster, identities, |table| place(pod, &labels, cluster, table));
            match placed {
                Ok(keyed) => workloads.push(keyed),
                Err(error) => self.problem(key, error.to_string()),
            }
        }
        workloads
    }

    fn plain_objects(&self, kind: Kind, bulk: &mut Vec<Keyed>) {
        let resource = |object: &Object| match object {
            Object::Node(node) => Some(Resource::Node(nodes::node(node))),
            Object::Service(service) => nodes::service(service).map(Resource::Service),
            Object::EndpointSlice(slice) => nodes::endpoints(slice).map(Resource::Endpoints),
            _ => None,
        };
        let keyed = self.good(kind).filter_map(|(_, good, _)| good.plain(|| resource(&good.object)));
        bulk.extend(keyed.cloned());
    }

    fn policies(&mut self) {
        let kinds = [Kind::CiliumNetworkPolicy, Kind::CiliumClusterwideNetworkPolicy, Kind::NetworkPolicy];
        for (key, decoded, entry) in kinds.into_iter().flat_map(|kind| self.good(kind)).collect::<Vec<_>>() {
            let unknown = decoded.unknown.clone();
            let policies = match &decoded.object {
                Object::CiliumNetworkPolicy(object) => {
                    policy::cilium(&Decoded { object: object.clone(), unknown })
                }
                Object::NetworkPolicy(object) => {
                    policy::kubernetes(&Decoded { object: object.clone(), unknown })
                }
                _ => continue,
            };
            // The store took the object only because this worked.
            for policy in policies.unwrap_or_else(|_error| policy::stand_in(key, &serde_json::Value::Null)) {
                self.add(Resource::Policy(policy));
            }
            let valid = Condition::new("Valid", true, entry.generation(), "Valid", "the policy is enforced");
            self.conditions(key, vec![valid]);
        }
    }

    fn rate_limits(&mut self) {
        let mut candidates = refused::rate_limits(self.store);
        for (_, decoded, entry) in self.good(Kind::RateLimitPolicy) {
            let Object::RateLimitPolicy(object) = &decoded.object else { continue };
            let created = object.metadata.created();
            let of_object = Decoded { object: object.clone(), unknown: decoded.unknown.clone() };
            if let Ok(limit) = ratelimit::translate(&of_object) {
                candidates.push(ratelimit::Candidate { limit, created, generation: entry.generation() });
            }
        }
        let store = self.store;
        for (key, condition, limit) in
            ratelimit::decide(candidates, |target| store.objects().contains_key(target))
        {
            if let Some(limit) = limit {
                self.add(Resource::RateLimit(limit));
            }
            // `refused` says what there is to say of the others.
            if store.objects().get(&key).is_some_and(|entry| entry.good().is_some()) {
                self.conditions(&key, vec![condition]);
            }
        }
    }

    fn gateway_api(&mut self) {
        let stand_ins = refused::routes(self.store);
        let mut input = Input { namespaces: namespaces(self.store), ..Input::default() };
        let kinds = [
            Kind::GatewayClass,
            Kind::Gateway,
            Kind::HttpRoute,
            Kind::ReferenceGrant,
            Kind::Service,
            Kind::Node,
        ];
        for (_, decoded, entry) in kinds.into_iter().flat_map(|kind| self.good(kind)) {
            match &decoded.object {
                Object::GatewayClass(object) => input.classes.push(item(object, decoded, entry)),
                Object::Gateway(object) => input.gateways.push(item(object, decoded, entry)),
                Object::HttpRoute(object) => input.routes.push(item(object, decoded, entry)),
                Object::ReferenceGrant(object) => input.grants.push(object),
                Object::Service(object) => {
                    let metadata = &object.metadata;
                    let name =
                        ObjectName { namespace: metadata.namespace.clone(), name: metadata.name.clone() };
                    input.services.insert(name, object);
                }
                Object::Node(object) => {
                    let addresses = nodes::node(object).addresses.into_iter();
                    input.node_addresses.extend(addresses.map(|address| Arc::from(address.to_string())));
                }
                _ => {}
            }
        }
        for (generation, reason, route) in &stand_ins {
            let refused = Some(&**reason);
            input.routes.push(Item { object: route, unknown: &[], generation: *generation, refused });
        }
        let output = weft_gateway_api::translate(&input);
        for resource in output.resources {
            self.add(resource);
        }
        for (object, status) in output.statuses {
            self.translation.statuses.push(ObjectStatus { object, status });
        }
        for (key, note) in output.notes {
            self.problem(&key, note);
        }
    }

    /// Closes what a refused object names, and says in its status why.
    fn refused(&mut self) {
        for (key, entry) in self.store.objects() {
            let Some(refused) = entry.refused() else { continue };
            if is_policy(key.kind) {
                self.refused_policy(key, refused, entry.generation());
                continue;
            }
            let so = match self.holds_back(key) {
                true => "; requests to its target are answered with 429",
                false => "",
            };
            let message = format!("{}{so}", refused.error);
            let accepted = Condition::new("Accepted", false, entry.generation(), "Invalid", &message);
            match key.kind {
                Kind::GatewayClass | Kind::RateLimitPolicy => self.conditions(key, vec![accepted]),
                Kind::Gateway => {
                    let status = GatewayStatus { conditions: vec![accepted], ..GatewayStatus::default() };
                    let status = Status::Gateway(status);
                    self.translation.statuses.push(ObjectStatus { object: key.clone(), status });
                }
                // A route has a status for each parent, which the translation of its stand-in has written.
                _ => {}
            }
        }
    }

    fn refused_policy(&mut self, key: &ObjectKey, refused: &Refused, generation: i64) {
        let stand_in = policy::stand_in(key, &refused.value);
        let so = if stand_in.is_empty() { "nothing enforces it" } else { "what it names is closed" };
        for policy in stand_in {
            self.add(Resource::Policy(policy));
        }
        let message = format!("{}; {so}", refused.error);
        self.conditions(key, vec![Condition::new("Valid", false, generation, "Invalid", &message)]);
    }

    /// Whether a rate limit of this policy is part of the state.
    fn holds_back(&self, key: &ObjectKey) -> bool {
        if key.kind != Kind::RateLimitPolicy {
            return false;
        }
        let limit = ResourceKey::RateLimit(ObjectName::new(&key.namespace, &key.name));
        self.translation.resources.contains_key(&limit)
    }

    fn conditions(&mut self, key: &ObjectKey, conditions: Vec<Condition>) {
        let status = Status::Conditions(ConditionsStatus { conditions });
        self.translation.statuses.push(ObjectStatus { object: key.clone(), status });
    }
}

fn namespaces(store: &Store) -> BTreeMap<Arc<str>, Labels> {
    let good = store.of_kind(Kind::Namespace).filter_map(|(_, entry)| entry.good());
    good.filter_map(|good| match &good.object {
        Object::Namespace(object) => Some((object.metadata.name.clone(), object.metadata.labels.clone())),
        _ => None,
    })
    .collect()
}

/// The labels of a pod's namespace, which the pod's identity has as well.
fn namespace_labels(store: &Store, name: &Arc<str>) -> Labels {
    let key = ObjectKey { kind: Kind::Namespace, namespace: "".into(), name: name.clone() };
    let good = store.objects().get(&key).and_then(|entry| entry.good());
    let mut labels = match good.map(|good| &good.object) {
        Some(Object::Namespace(object)) => object.metadata.labels.clone(),
        Some(_) | None => Labels::new(),
    };
    // The API server gives every namespace this label; a file need not have it.
    labels.insert("kubernetes.io/metadata.name".into(), name.clone());
    labels
}

fn place(
    pod: &Pod,
    namespace: &Arc<Labels>,
    cluster: &Arc<str>,
    identities: &mut Identities,
) -> Result<Placed, Exhausted> {
    let number = identities.number(&workload::identity_labels(pod, namespace, cluster))?;
    let identity = identities.identity(number).ok_or(Exhausted)?.clone();
    let resource = Resource::Workload(workload::translate(pod, number));
    let keyed = (resource.key(), Arc::new(resource));
    Ok(Placed { namespace: namespace.clone(), cluster: cluster.clone(), number, identity, keyed })
}

fn item<'a, T>(object: &'a T, decoded: &'a Decoded<Object>, entry: &Entry) -> Item<'a, T> {
    Item { object, unknown: &decoded.unknown, generation: entry.generation(), refused: None }
}

fn is_policy(kind: Kind) -> bool {
    matches!(kind, Kind::CiliumNetworkPolicy | Kind::CiliumClusterwideNetworkPolicy | Kind::NetworkPolicy)
}
