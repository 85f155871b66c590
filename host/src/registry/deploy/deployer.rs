//! The one task that changes what is live.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot, watch};

use super::retries::{Retried, Retries};
use super::{DeployError, DeployRequest};
use crate::journal::{DeploymentRecord, Journal, StoreError};
use crate::registry::live::Live;
use crate::registry::modules::{Loaded, Modules};
use crate::registry::plan::{self, Outline, Plan};
use crate::words::limits::{
    DEPLOYMENT_ATTEMPTS_MAX, DEPLOYMENT_NOTE_BYTES_MAX, GRANTS_MAX, LIVE_MODULES_MAX,
};
use crate::words::{Digest, Grants, Origin, Revision, clock};

pub(super) enum Message {
    Deploy {
        request: DeployRequest,
        answer: oneshot::Sender<Result<Plan, DeployError>>,
    },
    RollBack {
        to: Option<Revision>,
        force: bool,
        answer: oneshot::Sender<Result<Plan, DeployError>>,
    },
}

/// What came of the newest look for what other nodes have deployed.
pub(super) struct Look {
    /// How many wishes for one had come before it began.
    pub(super) wishes: u64,
    pub(super) live: Result<Revision, DeployError>,
}

pub(super) struct Deployer {
    modules: Modules,
    journal: Journal,
    live: Arc<ArcSwap<Live>>,
    announce: watch::Sender<Revision>,
    looked: watch::Sender<Look>,
    current: Candidate,
    /// All modules of the live revision, in the order in which the journal has them.
    order: Vec<Digest>,
    generation: u64,
    retries: Retries,
}

/// The modules of a revision, in the order in which the journal has them.
#[derive(Clone, Default)]
struct Candidate {
    loaded: Vec<Arc<Loaded>>,
    /// They stay in the revision: a later try may be able to load them.
    broken: Vec<Broken>,
    grants: Grants,
}

/// A module that is left out.
#[derive(Clone, PartialEq, Eq)]
struct Broken {
    digest: Digest,
    reason: String,
    /// Then it is tried again.
    may_pass: bool,
}

impl Deployer {
    pub(super) async fn open(modules: Modules, journal: Journal) -> Result<Self, DeployError> {
        let newest = journal.newest_deployment().await?;
        let (revision, order, current) = match newest {
            Some(record) => {
                let current = Candidate::load(&modules, &record, &[]).await?;
                (record.revision, record.modules, current)
            }
            None => (Revision::default(), Vec::new(), Candidate::default()),
        };
        current.broken.iter().for_each(Broken::tell);
        current.grant();
        let mut retries = Retries::new(modules.clone());
        retries.begin(current.passing());
        let generation = 0;
        let live = Arc::new(ArcSwap::from_pointee(current.live(revision, generation)));
        let (announce, _) = watch::channel(revision);
        let (looked, _) = watch::channel(Look { wishes: 0, live: Ok(revision) });
        Ok(Self { modules, journal, live, announce, looked, current, order, generation, retries })
    }

    pub(super) fn live(&self) -> Arc<ArcSwap<Live>> {
        Arc::clone(&self.live)
    }

    pub(super) fn watch(&self) -> watch::Receiver<Revision> {
        self.announce.subscribe()
    }

    pub(super) fn looked(&self) -> watch::Receiver<Look> {
        self.looked.subscribe()
    }

    /// Ends with the last handle.
    pub(super) async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Message>,
        mut wishes: watch::Receiver<u64>,
    ) {
        loop {
            tokio::select! {
                message = inbox.recv() => match message {
                    Some(message) => self.obey(message).await,
                    None => return,
                },
                Ok(()) = wishes.changed() => {
                    let wishes = *wishes.borrow_and_update();
                    let live = self.follow().await;
                    self.looked.send_replace(Look { wishes, live });
                }
                retried = self.retries.ended() => self.take_in(retried),
            }
        }
    }

    /// Whoever asked may have gone away: what they asked for is done all the same.
    async fn obey(&mut self, message: Message) {
        match message {
            Message::Deploy { request, answer } => {
                let _ = answer.send(self.deploy(request).await);
            }
            Message::RollBack { to, force, answer } => {
                let _ = answer.send(self.roll_back(to, force).await);
            }
        }
    }

    /// Makes the newest revision live, if another node made one.
    async fn follow(&mut self) -> Result<Revision, DeployError> {
        let current = self.revision();
        let newest = self.journal.newest_deployment().await?;
        let Some(record) = newest.filter(|record| record.revision > current) else {
            return Ok(current);
        };
        let next = Candidate::load(&self.modules, &record, &self.current.loaded).await?;
        next.broken.iter().for_each(Broken::tell);
        self.go_live(next, &record);
        Ok(record.revision)
    }

    /// What was left out of the live revision and could be loaded by now belongs to it.
    fn take_in(&mut self, retried: Vec<Retried>) {
        let next = self.current.with(&self.order, retried);
        for digest in next.digests_but_of(&self.current) {
            tracing::info!(module = %digest, "a module that was left out is live now");
        }
        let is_news = |broken: &&Broken| broken.may_pass || !self.current.broken.contains(broken);
        next.broken.iter().filter(is_news).for_each(Broken::tell);
        if next.broken != self.current.broken {
            self.show(next, self.revision());
        }
        self.retries.again(self.current.passing());
    }

    /// Where several nodes deploy at once, one is first; the others plan again on top of it.
    async fn deploy(&mut self, request: DeployRequest) -> Result<Plan, DeployError> {
        for _ in 1..DEPLOYMENT_ATTEMPTS_MAX {
            self.follow().await?;
            match self.try_deploy(request.clone()).await {
                Err(DeployError::Overtaken(_)) => {}
                result => return result,
            }
        }
        self.follow().await?;
        self.try_deploy(request).await
    }

    async fn roll_back(&mut self, to: Option<Revision>, force: bool) -> Result<Plan, DeployError> {
        if to.is_none() {
            // What came in between is not what was meant: no second try.
            self.follow().await?;
            return self.try_roll_back(to, force).await;
        }
        for _ in 1..DEPLOYMENT_ATTEMPTS_MAX {
            self.follow().await?;
            match self.try_roll_back(to, force).await {
                Err(DeployError::Overtaken(_)) => {}
                result => return result,
            }
        }
        self.follow().await?;
        self.try_roll_back(to, force).await
    }

    async fn try_deploy(&mut self, request: DeployRequest) -> Result<Plan, DeployError> {
        let invalid = |fault: String| Err(DeployError::Invalid(vec![fault]));
        if request.note.len() > DEPLOYMENT_NOTE_BYTES_MAX {
            let bytes = request.note.len();
            return invalid(format!(
                "the note has {bytes} bytes; the limit is {DEPLOYMENT_NOTE_BYTES_MAX}"
            ));
        }
        let digests: BTreeSet<Digest> = request.modules.iter().copied().collect();
        if digests.is_empty() || digests.len() > LIVE_MODULES_MAX {
            return invalid(format!("a deployment names 1 to {LIVE_MODULES_MAX} modules"));
        }
        let mut new = Vec::with_capacity(digests.len());
        for digest in digests {
            new.push(self.load(digest).await?);
        }
        let new_outlines: Vec<_> = new.iter().map(|loaded| loaded.outline.clone()).collect();
        let conflicts = plan::conflicts(&new_outlines);
        if !conflicts.is_empty() {
            return Err(DeployError::Invalid(conflicts));
        }
        check_grants(&new, &request.allow)?;
        let next = self.current.replace(new, &new_outlines, &request.allow);
        if next.len() > LIVE_MODULES_MAX {
            return invalid(format!("there may be {LIVE_MODULES_MAX} live modules, not more"));
        }
        self.take_over(next, request.plan, request.force, request.note).await
    }

    async fn try_roll_back(
        &mut self,
        to: Option<Revision>,
        force: bool,
    ) -> Result<Plan, DeployError> {
        let earlier = Revision(self.revision().0.saturating_sub(1));
        let records = self.journal.deployments().await?;
        let record = records.into_iter().find(|record| record.revision == to.unwrap_or(earlier));
        let record = record.ok_or(match to {
            Some(to) => DeployError::UnknownRevision(to),
            None => DeployError::NoEarlierRevision,
        })?;
        let to = record.revision;
        let mut next = Candidate { grants: record.grants, ..Candidate::default() };
        for digest in record.modules {
            let loaded = self.load(digest).await?;
            next.add(loaded);
        }
        self.take_over(next, false, force, format!("roll back to {to}")).await
    }

    fn revision(&self) -> Revision {
        *self.announce.borrow()
    }

    /// A live module is taken as it is, so that entities of services that stay need not move.
    async fn load(&self, digest: Digest) -> Result<Arc<Loaded>, DeployError> {
        match self.current.loaded.iter().find(|loaded| loaded.module.digest == digest) {
            Some(loaded) => Ok(Arc::clone(loaded)),
            None => self.modules.load(digest).await,
        }
    }

    async fn take_over(
        &mut self,
        next: Candidate,
        only_plan: bool,
        force: bool,
        note: String,
    ) -> Result<Plan, DeployError> {
        let current = self.revision();
        let (before, after) = (self.current.outlines(), next.outlines());
        let changes = plan::changes(&before, &after);
        if self.current.is_like(&next) {
            return Ok(Plan { revision: current, changes, grants: next.grants });
        }
        let shared = plan::shared_groups(&after);
        if !shared.is_empty() {
            return Err(DeployError::Invalid(shared));
        }
        if !force {
            for plan::Orphan { journal, change } in plan::orphans(&before, &after) {
                if self.journal.count_entities(&journal, 1).await? > 0 {
                    return Err(DeployError::WouldOrphan { journal, change });
                }
            }
        }
        let revision = Revision(current.0 + 1);
        let grants = next.grants.clone();
        if only_plan {
            return Ok(Plan { revision, changes, grants });
        }
        let record = DeploymentRecord {
            revision,
            modules: next.digests(),
            created_at_ms: clock::unix_ms(),
            note,
            grants: grants.clone(),
        };
        match self.journal.put_deployment(&record).await {
            Ok(()) => {}
            Err(StoreError::Conflict { .. }) => return Err(DeployError::Overtaken(revision)),
            Err(error) => return Err(error.into()),
        }
        self.go_live(next, &record);
        Ok(Plan { revision, changes, grants })
    }

    fn go_live(&mut self, next: Candidate, record: &DeploymentRecord) {
        let (revision, note) = (record.revision, record.note.as_str());
        self.order.clone_from(&record.modules);
        self.show(next, revision);
        self.retries.begin(self.current.passing());
        tracing::info!(%revision, note, "a revision took effect");
    }

    fn show(&mut self, next: Candidate, revision: Revision) {
        next.grant();
        self.generation += 1;
        self.live.store(Arc::new(next.live(revision, self.generation)));
        let replaced = std::mem::replace(&mut self.current, next);
        for loaded in replaced.loaded {
            self.modules.remember(loaded);
        }
        self.announce.send_replace(revision);
    }
}

/// A module that can send requests and has nobody to send them to would only fail later.
fn check_grants(new: &[Arc<Loaded>], allow: &[Origin]) -> Result<(), DeployError> {
    let needs = |loaded: &&Arc<Loaded>| loaded.module.component.needs_grant();
    let fault = match (new.iter().find(needs), allow.len()) {
        (Some(loaded), 0) => format!(
            "{} imports wasi:http, and nothing is granted to it; say which origins its actions may \
             send requests to: --allow http=https://api.example.com",
            loaded.module.name
        ),
        (None, 1..) => "--allow was given, but none of the modules imports wasi:http".to_owned(),
        (Some(_), origins) if origins > GRANTS_MAX => {
            format!("{origins} origins are granted; the limit is {GRANTS_MAX}")
        }
        (Some(_), _) | (None, _) => return Ok(()),
    };
    Err(DeployError::Invalid(vec![fault]))
}

impl Candidate {
    /// Lets every module reach what it may.
    fn grant(&self) {
        for loaded in &self.loaded {
            let origins = self.grants.of(&loaded.module.digest).to_vec();
            loaded.module.component.grant(origins);
        }
    }

    /// Only a failing journal is an error. A module that is live is taken as it is.
    async fn load(
        modules: &Modules,
        record: &DeploymentRecord,
        live: &[Arc<Loaded>],
    ) -> Result<Self, DeployError> {
        let digests = &record.modules;
        let loads = digests.iter().map(|&digest| {
            let known = live.iter().find(|loaded| loaded.module.digest == digest).cloned();
            async move {
                match known {
                    Some(loaded) => Ok(loaded),
                    None => modules.load(digest).await,
                }
            }
        });
        let mut candidate = Self { grants: record.grants.clone(), ..Self::default() };
        for (digest, result) in digests.iter().zip(join_all(loads).await) {
            match result {
                Err(error @ DeployError::Journal(_)) => return Err(error),
                result => candidate.take(*digest, result),
            }
        }
        Ok(candidate)
    }

    /// The same revision after some that it leaves out were tried again.
    fn with(&self, order: &[Digest], retried: Vec<Retried>) -> Self {
        let mut retried: BTreeMap<_, _> = retried.into_iter().collect();
        let mut next = Self { grants: self.grants.clone(), ..Self::default() };
        for digest in order {
            let live = self.loaded.iter().find(|loaded| loaded.module.digest == *digest);
            match (live, retried.remove(digest)) {
                (Some(loaded), _) => next.add(Arc::clone(loaded)),
                (None, Some(result)) => next.take(*digest, result),
                (None, None) => {
                    let broken = self.broken.iter().find(|broken| broken.digest == *digest);
                    next.broken.extend(broken.cloned());
                }
            }
        }
        next
    }

    fn take(&mut self, digest: Digest, result: Result<Arc<Loaded>, DeployError>) {
        match result {
            Ok(loaded) => self.add(loaded),
            Err(error) => {
                let (reason, may_pass) = (error.to_string(), error.may_pass());
                self.broken.push(Broken { digest, reason, may_pass });
            }
        }
    }

    /// A revision may name a module that was broken when its successor was deployed: the successor wins.
    fn add(&mut self, loaded: Arc<Loaded>) {
        let broken = &mut self.broken;
        self.loaded.retain(|earlier| {
            let clash = earlier.outline.clash(&loaded.outline);
            if let Some(what) = &clash {
                let by = loaded.outline.digest.short();
                let reason = format!("a later module, {by}, has {what} too");
                let digest = earlier.outline.digest;
                broken.push(Broken { digest, reason, may_pass: false });
            }
            clash.is_none()
        });
        self.loaded.push(loaded);
    }

    fn replace(&self, new: Vec<Arc<Loaded>>, new_outlines: &[Outline], allow: &[Origin]) -> Self {
        let is_new = |digest: &Digest| new_outlines.iter().any(|new| new.digest == *digest);
        let stays = |loaded: &&Arc<Loaded>| plan::stays(&loaded.outline, new_outlines);
        let broken = self.broken.iter().filter(|broken| !is_new(&broken.digest));
        let needing = new.iter().filter(|loaded| loaded.module.component.needs_grant());
        let granted: Vec<_> = needing.map(|loaded| loaded.module.digest).collect();
        let loaded: Vec<_> = self.loaded.iter().filter(stays).cloned().chain(new).collect();
        let mut next =
            Self { loaded, broken: broken.cloned().collect(), grants: self.grants.clone() };
        let kept = next.digests();
        next.grants.0.retain(|digest, _| kept.contains(digest));
        next.grants.0.extend(granted.into_iter().map(|digest| (digest, allow.to_vec())));
        next
    }

    fn outlines(&self) -> Vec<&Outline> {
        self.loaded.iter().map(|loaded| &loaded.outline).collect()
    }

    /// Broken modules first: those after them win.
    fn digests(&self) -> Vec<Digest> {
        let broken = self.broken.iter().map(|broken| broken.digest);
        broken.chain(self.loaded.iter().map(|loaded| loaded.module.digest)).collect()
    }

    /// Those that are live here and not in the other.
    fn digests_but_of(&self, other: &Self) -> Vec<Digest> {
        let digests = self.loaded.iter().map(|loaded| loaded.module.digest);
        let is_new =
            |digest: &Digest| other.loaded.iter().all(|loaded| loaded.module.digest != *digest);
        digests.filter(is_new).collect()
    }

    /// Those that are worth another try.
    fn passing(&self) -> Vec<Digest> {
        let passing = self.broken.iter().filter(|broken| broken.may_pass);
        passing.map(|broken| broken.digest).collect()
    }

    fn len(&self) -> usize {
        self.loaded.len() + self.broken.len()
    }

    /// Whether the same modules are live and the same ones are not.
    fn is_like(&self, other: &Self) -> bool {
        let live = |candidate: &Self| -> BTreeSet<Digest> {
            candidate.loaded.iter().map(|loaded| loaded.module.digest).collect()
        };
        let broken = |candidate: &Self| -> BTreeSet<Digest> {
            candidate.broken.iter().map(|broken| broken.digest).collect()
        };
        live(self) == live(other) && broken(self) == broken(other) && self.grants == other.grants
    }

    fn live(&self, revision: Revision, generation: u64) -> Live {
        let services = self.loaded.iter().flat_map(|loaded| &loaded.services);
        Live {
            revision,
            generation,
            modules: self.loaded.iter().map(|loaded| Arc::clone(&loaded.module)).collect(),
            services: services
                .map(|service| (service.name.clone(), Arc::clone(service)))
                .collect::<BTreeMap<_, _>>(),
            broken: self.broken.iter().map(Broken::told).collect(),
        }
    }
}

impl Broken {
    fn tell(&self) {
        let Self { digest, reason, .. } = self;
        tracing::error!(module = %digest, reason, "a module of the live revision is left out");
    }

    /// For operators.
    fn told(&self) -> (Digest, String) {
        let Self { digest, reason, may_pass } = self;
        let then = if *may_pass { " (it is tried again)" } else { "" };
        (*digest, format!("{reason}{then}"))
    }
}
