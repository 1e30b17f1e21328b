// SPDX-License-Identifier: Apache-2.0

use serde_json::json;

use super::*;

fn service(name: &str, version: u64) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "shop", "resourceVersion": version.to_string()},
        "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 80}]},
    })
}

/// A source that is told everything by hand.
struct Told {
    source: KubeSource,
    sender: mpsc::Sender<Message>,
}

impl Told {
    /// Every kind was listed at version 1 and has no object.
    async fn whole() -> Told {
        let mut told = Told::begun();
        let empty = Kind::ALL.map(|kind| [(kind, Heard::Begin), (kind, Heard::Complete(1))]);
        assert!(told.take(empty.as_flattened()).await, "the first state is complete");
        told
    }

    fn begun() -> Told {
        let (sender, messages) = mpsc::channel(WAITING);
        Told { source: KubeSource::over(messages, Supervisor::new()), sender }
    }

    async fn take(&mut self, messages: &[Message]) -> bool {
        for message in messages {
            self.sender.send(message.clone()).await.unwrap();
        }
        self.source.changed().await.unwrap();
        self.source.take()
    }

    async fn hear(&mut self, heard: impl IntoIterator<Item = Heard>) -> bool {
        let messages: Vec<Message> = heard.into_iter().map(|heard| (Kind::Service, heard)).collect();
        self.take(&messages).await
    }

    fn names(&mut self) -> Vec<String> {
        self.source.store_mut().objects().keys().map(|key| key.name.to_string()).collect()
    }

    fn version(&self) -> u64 {
        self.source.versions().0["services"]
    }
}

#[tokio::test]
async fn nothing_is_complete_before_every_kind_was_listed() {
    let mut told = Told::begun();
    let mut all: Vec<Message> =
        Kind::ALL.into_iter().flat_map(|kind| [(kind, Heard::Begin), (kind, Heard::Complete(1))]).collect();
    let last = all.pop().unwrap();
    assert!(!told.take(&all).await && !told.source.is_whole());
    assert!(told.take(&[last]).await && told.source.is_whole());
}

#[tokio::test]
async fn a_list_removes_what_it_does_not_name_at_its_end_and_not_before() {
    let mut told = Told::whole().await;
    assert!(told.hear([Heard::Object(service("a", 2)), Heard::Object(service("b", 3))]).await);
    told.hear([Heard::Begin, Heard::Object(service("b", 3)), Heard::Object(service("c", 5))]).await;
    assert_eq!(told.names(), ["a", "b", "c"], "nothing is missing meanwhile");
    // The server went away within its list, and comes back with another.
    told.hear([Heard::Trouble("away".into()), Heard::Begin, Heard::Object(service("c", 5))]).await;
    assert_eq!(told.names(), ["a", "b", "c"]);
    assert_eq!(told.source.problems()[0].message.as_ref(), "away; what was read before stays");
    assert!(told.hear([Heard::Object(service("b", 3)), Heard::Complete(6)]).await);
    assert_eq!((told.names(), told.version()), (vec!["b".to_owned(), "c".to_owned()], 6));
    assert_eq!(told.source.problems(), []);
}

#[tokio::test]
async fn what_is_older_than_what_is_known_changes_nothing() {
    let mut told = Told::whole().await;
    let mut moved = service("a", 7);
    moved["spec"]["clusterIP"] = "10.0.0.7".into();
    told.hear([Heard::Object(moved)]).await;
    told.source.store_mut().take_changes();
    // A server that is behind, and a deletion of an object that was made again since.
    assert!(!told.hear([Heard::Object(service("a", 6)), Heard::Gone(service("a", 6)), Heard::At(6)]).await);
    assert_eq!((told.source.store_mut().take_changes().len(), told.version()), (0, 7));
    assert!(told.hear([Heard::Gone(service("a", 8))]).await);
    assert_eq!((told.names(), told.version()), (vec![], 8));
}

#[tokio::test]
async fn a_kind_that_is_not_served_has_no_objects_and_may_come() {
    let mut told = Told::begun();
    let others = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Service);
    let mut all: Vec<Message> =
        others.flat_map(|kind| [(kind, Heard::Begin), (kind, Heard::Complete(1))]).collect();
    all.push((Kind::Service, Heard::Missing(9)));
    assert!(told.take(&all).await, "what does not exist was read");
    assert!(told.hear([Heard::Begin, Heard::Object(service("a", 10)), Heard::Complete(11)]).await);
    assert_eq!(told.names(), ["a"]);
    assert!(told.hear([Heard::Missing(12)]).await);
    assert_eq!((told.names(), told.version()), (vec![], 12));
}

#[tokio::test]
async fn changes_that_come_together_are_one() {
    let mut told = Told::whole().await;
    let many = (0..300).map(|at| Heard::Object(service(&format!("s{at}"), at + 2)));
    assert!(told.hear(many.chain([Heard::Gone(service("s7", 400))])).await);
    assert_eq!(told.names().len(), 299);
    assert_eq!(told.source.len(), 299);
}
