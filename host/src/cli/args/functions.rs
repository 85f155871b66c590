//! Arguments of `stead consumers ..` and `stead dead-letters ..`.

use clap::{Args, Subcommand};

use super::AdminPort;

#[derive(Debug, Subcommand)]
pub enum ConsumersCommand {
    /// Say how far each group and each view has come, and what lags behind.
    List(ConsumersListArgs),
    /// Make a group begin again, from the beginning or from now.
    Reset(ConsumersResetArgs),
    /// Let a group go on behind an event that it cannot consume. The decision is logged.
    Skip(ConsumersSkipArgs),
    /// Delete the place of a group that nothing deployed has any more, or of a view with its rows.
    Delete(ConsumersDeleteArgs),
}

#[derive(Debug, Args)]
#[command(
    after_help = "JSON: {consumers: [{group, event_log, service, view, serving, behind, laggards: [{entity_id, seq, tries, error, next_try_time}], more_laggards}]}"
)]
pub struct ConsumersListArgs {
    #[command(flatten)]
    pub port: AdminPort,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  stead consumers reset shopping-cart/hot-items --from beginning --yes\n\nJSON: {group, from}"
)]
pub struct ConsumersResetArgs {
    /// LOG/GROUP, as `stead consumers list` shows it.
    #[arg(value_name = "GROUP")]
    pub group: String,

    /// Where to begin: with every event that there is, or with those that come from now on.
    #[arg(long, value_enum)]
    pub from: ConsumeFrom,

    /// Do not ask: events may be consumed again, or never.
    #[arg(long)]
    pub yes: bool,

    #[command(flatten)]
    pub port: AdminPort,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ConsumeFrom {
    Beginning,
    Now,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  stead consumers skip shopping-cart/hot-items ada 7 --yes\n\nJSON: {group, entity_id, seq}"
)]
pub struct ConsumersSkipArgs {
    /// LOG/GROUP, as `stead consumers list` shows it.
    #[arg(value_name = "GROUP")]
    pub group: String,

    /// The entity whose event fails.
    #[arg(value_name = "ENTITY_ID")]
    pub entity_id: String,

    /// The number of that event.
    #[arg(value_name = "SEQ")]
    pub seq: u64,

    /// Do not ask: the group will never consume the event.
    #[arg(long)]
    pub yes: bool,

    #[command(flatten)]
    pub port: AdminPort,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  stead consumers delete shopping-cart/hot-items --yes\n\nJSON: {group}"
)]
pub struct ConsumersDeleteArgs {
    /// As `stead consumers list` shows it, with the state `not live`.
    #[arg(value_name = "GROUP")]
    pub group: String,

    /// Do not ask: should the group come back, it begins anew.
    #[arg(long)]
    pub yes: bool,

    #[command(flatten)]
    pub port: AdminPort,
}

#[derive(Debug, Subcommand)]
pub enum DeadLettersCommand {
    /// List effects that were given up, oldest first.
    List(DeadLettersListArgs),
    /// Try one again at once.
    Retry(DeadLetterArgs),
    /// Drop one for good: its call will never be made.
    Drop(DeadLetterArgs),
}

#[derive(Debug, Args)]
#[command(
    after_help = "JSON: {dead_letters: [{id, journal, entity_id, service, method, payload_bytes, create_time, tries, error, next_try_time, dead_letter}], next_page_token}"
)]
pub struct DeadLettersListArgs {
    /// At most so many.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,

    /// Go on where an earlier list ended.
    #[arg(long, value_name = "TOKEN", default_value = "")]
    pub page_token: String,

    #[command(flatten)]
    pub port: AdminPort,
}

#[derive(Debug, Args)]
#[command(after_help = "JSON: {id}")]
pub struct DeadLetterArgs {
    /// As `stead dead-letters list` shows it.
    #[arg(value_name = "ID")]
    pub id: String,

    #[command(flatten)]
    pub port: AdminPort,
}
