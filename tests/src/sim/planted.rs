//! Faults of ours, planted so that the checkers prove themselves.

/// What the simulator's driver does wrong on purpose. The server's code stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// Consensus is told that an append is durable before it was begun.
    AcknowledgeBeforeSync,
    /// A watch event leaves behind the reply that shows the new data.
    WatchAfterReply,
    /// A write that is delivered twice is applied twice.
    SkipDedup,
    /// The mark is lost that makes the service keep the tree before a write: a read in front of that write sees it.
    LoseMark,
    /// A restart forgets the last entry in front of what it replays, as from a checkpoint that lacks it.
    SkipEntryOnRestart,
    /// The service's clock runs ahead: sessions end whose clients were just heard.
    ExpireEarly,
    /// Now and then consensus is not told that an append is durable.
    LoseReport,
    /// Replies of one turn change places.
    SwapReplies,
    /// The log is purged segment by segment, whether a checkpoint holds them or not.
    PurgeTooFar,
    /// A leader counts what it sends to a follower as durable there.
    MinorityAsQuorum,
    /// A write that is forwarded to the leader is proposed there twice, the second time without its tag.
    ForwardTwice,
    /// A leader that was deposed goes on to expire sessions, and the log takes it.
    DeposedLeaderExpires,
    /// A server that takes another's tree forgets the entry behind it, as from a snapshot that lacks its last one.
    SkipEntryOnInstall,
    /// A sync is answered from what the server has, without asking who leads.
    SyncWithoutQuorum,
    /// A server that lost its disk comes back and votes as if nothing had happened.
    WipedVoterVotes,
    /// An observer does not apply one of the entries that it was fed.
    ObserverSkipsEntry,
    /// A feeder sends what it has in its log, committed or not.
    FeedUncommitted,
    /// In a joint configuration, who votes by the old half alone is not waited for.
    NewVotersAlone,
    /// A follower goes by a configuration as soon as it has it.
    ConfigurationWhenProposed,
    /// A changed configuration does not reach the checkpoint.
    ConfigurationNotKept,
    /// No server hears what the others' trees are.
    NobodyCompares,
    /// A server gives its tree away before the others have confirmed it.
    SendUnconfirmed,
    /// A server that begins anew in place goes on with its connections, and not with their watches.
    KeptWithoutWatches,
    /// Who is to come to an ensemble founds one with others that are, when they reach nobody else.
    JoinersFound,
    /// No leader hears of the founders' stores, and an empty server joins as soon as somebody has none recorded of it.
    JoinsUnrecorded,
    /// Who founds goes on to say that it is empty until its log has something.
    FounderSaysEmpty,
}

impl Planted {
    /// Every one of them.
    pub const ALL: [Planted; 26] = [
        Planted::AcknowledgeBeforeSync,
        Planted::WatchAfterReply,
        Planted::SkipDedup,
        Planted::LoseMark,
        Planted::SkipEntryOnRestart,
        Planted::ExpireEarly,
        Planted::LoseReport,
        Planted::SwapReplies,
        Planted::PurgeTooFar,
        Planted::MinorityAsQuorum,
        Planted::ForwardTwice,
        Planted::DeposedLeaderExpires,
        Planted::SkipEntryOnInstall,
        Planted::SyncWithoutQuorum,
        Planted::WipedVoterVotes,
        Planted::ObserverSkipsEntry,
        Planted::FeedUncommitted,
        Planted::NewVotersAlone,
        Planted::ConfigurationWhenProposed,
        Planted::ConfigurationNotKept,
        Planted::NobodyCompares,
        Planted::SendUnconfirmed,
        Planted::KeptWithoutWatches,
        Planted::JoinersFound,
        Planted::JoinsUnrecorded,
        Planted::FounderSaysEmpty,
    ];

    /// Does it take several servers?
    pub fn is_of_ensemble(self) -> bool {
        matches!(
            self,
            Planted::MinorityAsQuorum
                | Planted::ForwardTwice
                | Planted::DeposedLeaderExpires
                | Planted::SkipEntryOnInstall
                | Planted::SyncWithoutQuorum
                | Planted::WipedVoterVotes
                | Planted::NobodyCompares
        ) || self.is_of_observers()
            || self.is_of_membership()
    }

    /// Does it take changes of the membership?
    pub fn is_of_membership(self) -> bool {
        matches!(
            self,
            Planted::NewVotersAlone
                | Planted::ConfigurationWhenProposed
                | Planted::ConfigurationNotKept
                | Planted::JoinersFound
                | Planted::JoinsUnrecorded
                | Planted::FounderSaysEmpty
        )
    }

    /// Does it take observers?
    pub fn is_of_observers(self) -> bool {
        matches!(self, Planted::ObserverSkipsEntry | Planted::FeedUncommitted | Planted::SendUnconfirmed)
    }
}
