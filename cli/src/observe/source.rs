// SPDX-License-Identifier: Apache-2.0
//! The streams of flows, one for each server.

use std::time::Duration;

use tokio::{sync::mpsc, time::sleep};
use weft_flow_export::{
    Flow,
    serve::{Line, encode},
};
use weft_runtime::supervise::PeerTasks;
use weft_time::Timestamp;

use crate::client::{ClientError, Server};

/// Reads from one server until nobody wants its flows.
const STREAM: PeerTasks = PeerTasks::new("stream of flows");

/// The pause before a server that went away is asked again.
const PAUSE: Duration = Duration::from_secs(1);
/// Flows that wait to be printed.
const QUEUE: usize = 1024;

/// What a stream tells.
pub(super) enum News {
    /// A flow.
    Flow(Box<Flow>),
    /// The node's ring went on without us.
    Lost(u64),
    /// A connection was lost and is tried again.
    Trouble(String),
    /// The server is given up.
    Failed(anyhow::Error),
}

/// All streams together.
pub(super) struct Sources {
    news: mpsc::Receiver<News>,
}

impl Sources {
    /// Begins to read from every server.
    pub(super) fn open(servers: &[Server], query: &str, follow: bool) -> Sources {
        let (sender, news) = mpsc::channel(QUEUE);
        for server in servers {
            let stream = Stream {
                server: server.clone(),
                query: query.to_owned(),
                follow,
                latest: None,
                sender: sender.clone(),
            };
            STREAM.start(stream.run());
        }
        Sources { news }
    }

    /// The next of any server; nothing when all streams are over. Safe to cancel.
    pub(super) async fn next(&mut self) -> Option<News> {
        self.news.recv().await
    }

    /// Whether nothing more is there at the moment.
    pub(super) fn is_quiet(&self) -> bool {
        self.news.is_empty()
    }
}

struct Stream {
    server: Server,
    query: String,
    follow: bool,
    latest: Option<Timestamp>,
    sender: mpsc::Sender<News>,
}

impl Stream {
    async fn run(mut self) {
        let mut connected = false;
        loop {
            let ended = self.read(&mut connected).await;
            let news = match ended {
                // A first connection that fails is most likely a wrong address; later ones come back.
                Err(error) if !connected || !self.follow => News::Failed(error.into()),
                Ok(()) if !self.follow => return,
                Ok(()) => News::Trouble(format!("{} closed the stream, asking again", self.server)),
                Err(error) => News::Trouble(format!("{:#}, asking again", anyhow::Error::from(error))),
            };
            let over = matches!(news, News::Failed(_));
            if self.sender.send(news).await.is_err() || over {
                return;
            }
            self.wait_for_server().await;
        }
    }

    /// Asks again, quietly, until somebody listens.
    async fn wait_for_server(&self) {
        loop {
            sleep(PAUSE).await;
            if self.server.fetch_text("/healthz").await.is_ok() {
                return;
            }
        }
    }

    async fn read(&mut self, connected: &mut bool) -> Result<(), ClientError> {
        let mut answer = self.server.get(&self.path()).await?.success().await?;
        *connected = true;
        while let Some(line) = answer.line().await? {
            let decoded = serde_json::from_slice(&line)
                .map_err(|source| ClientError::Decode { server: self.server.clone(), source })?;
            let news = match decoded {
                Line::Flow(flow) => {
                    self.latest = self.latest.max(Some(flow.time));
                    News::Flow(flow)
                }
                Line::Lost { count } => News::Lost(count),
            };
            if self.sender.send(news).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The question; after an interruption, for what came after the latest flow that was seen.
    fn path(&self) -> String {
        let Some(Timestamp(latest)) = self.latest else { return format!("/flows?{}", self.query) };
        let begin = |pair: &&str| !pair.starts_with("since=") && !pair.starts_with("last=");
        let mut pairs: Vec<&str> = self.query.split('&').filter(begin).collect();
        let since = format!("since={}", encode(&Timestamp(latest.saturating_add(1)).to_string()));
        pairs.push(&since);
        format!("/flows?{}", pairs.join("&"))
    }
}
