//! The bugs, and which property catches each.

/// A mistake that lock libraries make, or could.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    CheckThenAct,
    ReleaseWithoutOwnerCheck,
    ReleaseThatIsAlwaysFine,
    OneOwnerForAllAttempts,
    Reentrant,
    BusyIsAnError,
    NoUndoOnCancel,
    NoUndoAfterTimeout,
    NoReleaseOnDrop,
    UndoThatNobodyAwaits,
    WaiterLeftOnTheServer,
    WaiterThatIsNotWoken,
    LastComeFirstServed,
    WaitingThatIsDenied,
    NoRenewal,
    RenewalOfTheFirstHundred,
    RenewalThatCreates,
    RenewalAfterRelease,
    LeaseLongerThanAskedFor,
    DeadlineMovedWithoutAnAnswer,
    ValidityFromTheReply,
    RandomToken,
    TokenThatEndsWithTheLease,
    TokenWithoutClock,
    CaseFolded,
    PathFolded,
    LineEndTrimmed,
    LossFromAFlag,
    LossThatIsRevived,
    LossThatIsNotTold,
    TryThatWaits,
    WaitThatBlocksTheThread,
    OptionsUnchecked,
    VerifyFromMemory,
    TaskLeftRunning,
    ConnectionLeftOpen,
}

/// A bug, the property that must catch it, and a part of what the property must say.
pub(crate) struct Plant {
    pub(crate) bug: Bug,
    pub(crate) caught_by: &'static str,
    pub(crate) because: &'static str,
}

const fn plant(bug: Bug, caught_by: &'static str, because: &'static str) -> Plant {
    Plant { bug, caught_by, because }
}

pub(crate) const PLANTS: &[Plant] = &[
    plant(Bug::CheckThenAct, "exclusion::clients_never_overlap", "two tasks held"),
    plant(
        Bug::ReleaseWithoutOwnerCheck,
        "release::a_stale_release_frees_nothing",
        "must leave the hold of the successor",
    ),
    plant(Bug::ReleaseThatIsAlwaysFine, "release::a_release_after_loss_says_so", "must fail as Lost"),
    plant(
        Bug::OneOwnerForAllAttempts,
        "cancellation::the_undo_of_a_dropped_try_leaves_the_next_hold",
        "was freed by the undo of a dropped try",
    ),
    plant(Bug::Reentrant, "exclusion::locks_are_not_reentrant", "must be held, so a try must be refused"),
    plant(Bug::BusyIsAnError, "busy::busy_is_a_value", "must give Ok(None)"),
    plant(Bug::NoUndoOnCancel, "cancellation::a_try_dropped_at_any_poll_leaves_nothing", "no trace"),
    plant(Bug::NoUndoAfterTimeout, "cancellation::a_late_grant_to_a_try_out_of_time_is_undone", "no trace"),
    plant(Bug::NoReleaseOnDrop, "release::a_dropped_guard_frees", "to be free"),
    plant(Bug::UndoThatNobodyAwaits, "release::close_waits_for_background_releases", "after close nothing"),
    plant(
        Bug::WaiterLeftOnTheServer,
        "cancellation::a_waiter_dropped_at_any_poll_leaves_nothing",
        "no trace",
    ),
    plant(Bug::WaiterThatIsNotWoken, "handover::a_release_wakes_the_waiter", "a hand-over: it must end"),
    plant(Bug::LastComeFirstServed, "fifo::waiters_are_served_in_order_of_arrival", "in order of arrival"),
    plant(Bug::WaitingThatIsDenied, "capabilities::it_waits_as_declared", "must fail as Unsupported"),
    plant(Bug::NoRenewal, "lease::renewal_outlives_ten_leases", "must be held for ever"),
    plant(Bug::RenewalOfTheFirstHundred, "many::one_locker_holds_a_thousand_keys", "must be held for longer"),
    plant(
        Bug::RenewalAfterRelease,
        "lease::nothing_is_renewed_after_a_release",
        "must not follow the release",
    ),
    plant(
        Bug::LeaseLongerThanAskedFor,
        "crash::a_holder_without_a_runtime_is_succeeded",
        "it must end within",
    ),
    plant(
        Bug::DeadlineMovedWithoutAnAnswer,
        "lease::a_loss_is_seen_by_the_deadline_when_servers_freeze",
        "was still believed in",
    ),
    plant(Bug::RenewalThatCreates, "lease::a_renewal_creates_no_key", "must not create"),
    plant(Bug::ValidityFromTheReply, "lease::a_lease_counts_from_the_sending", "is believed in for"),
    plant(Bug::RandomToken, "tokens::tokens_grow_from_client_to_client", "must be larger"),
    plant(Bug::TokenThatEndsWithTheLease, "tokens::tokens_grow_past_the_end_of_a_lease", "must be larger"),
    plant(Bug::TokenWithoutClock, "tokens::tokens_grow_past_a_restart_without_data", "must be larger"),
    plant(Bug::CaseFolded, "names::different_names_are_different_locks", "A\" must be free, but is held"),
    plant(Bug::PathFolded, "names::different_names_are_different_locks", "a/b\" must be free, but is held"),
    plant(
        Bug::LineEndTrimmed,
        "names::different_names_are_different_locks",
        "\\n\" must be free, but is held",
    ),
    plant(
        Bug::LossFromAFlag,
        "lease::a_starved_holder_sees_its_loss_at_its_first_question",
        "must see the loss at its first question",
    ),
    plant(Bug::LossThatIsRevived, "lease::a_loss_is_final", "must not be held again"),
    plant(Bug::LossThatIsNotTold, "run::run_stops_the_work_on_loss", "run of work whose lock is lost"),
    plant(Bug::TryThatWaits, "busy::a_try_does_not_wait", "a try for a held key: it must end"),
    plant(Bug::WaitThatBlocksTheThread, "timeouts::a_short_timeout_is_kept", "a wait of 200 ms: it must end"),
    plant(Bug::OptionsUnchecked, "options::impossible_options_are_refused", "must fail as InvalidInput"),
    plant(Bug::VerifyFromMemory, "verify::verify_tells_a_loss", "must fail as Lost"),
    plant(Bug::TaskLeftRunning, "leaks::no_trace_and_no_task_is_left", "tasks left"),
    plant(Bug::ConnectionLeftOpen, "leaks::no_connection_is_left", "connections, 0 before"),
];

/// What a bug is planted in; each is sound without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Soil {
    /// A store under lock-core's machinery.
    Store,
    /// Such a store whose waiters queue.
    Queue,
    /// A backend that does without the machinery.
    Backend,
}

impl Bug {
    pub(crate) fn soil(self) -> Soil {
        match self {
            Self::LastComeFirstServed => Soil::Queue,
            Self::LossFromAFlag
            | Self::LossThatIsRevived
            | Self::LossThatIsNotTold
            | Self::TryThatWaits
            | Self::WaitThatBlocksTheThread
            | Self::RenewalAfterRelease
            | Self::DeadlineMovedWithoutAnAnswer
            | Self::OptionsUnchecked => Soil::Backend,
            _ => Soil::Store,
        }
    }
}
