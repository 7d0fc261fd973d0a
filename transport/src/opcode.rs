//! The types of request, as the wire numbers them (ZooKeeper's `ZooDefs.OpCode`).

macro_rules! opcodes {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// What a request asks for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(i32)]
        pub enum Opcode {
            $($(#[$doc])* $name = $code,)*
        }

        impl Opcode {
            /// Every opcode, in the order of the enum.
            pub const ALL: &[Opcode] = &[$(Opcode::$name),*];

            /// From the wire; `None` for a number that ZooKeeper does not know.
            pub const fn from_wire(code: i32) -> Option<Opcode> {
                match code {
                    $($code => Some(Opcode::$name),)*
                    _ => None,
                }
            }
        }
    };
}

opcodes! {
    /// Only within a reply: the result of an operation of a multi that was not carried out.
    Error = -1,
    /// Only server to client: a watch event.
    Notification = 0,
    /// Create; the path comes back.
    Create = 1,
    /// Delete.
    Delete = 2,
    /// Is it there?
    Exists = 3,
    /// Data and Stat.
    GetData = 4,
    /// Set data.
    SetData = 5,
    /// ACL and Stat.
    GetAcl = 6,
    /// Set the ACL.
    SetAcl = 7,
    /// Names of the children.
    GetChildren = 8,
    /// Catch up with the leader.
    Sync = 9,
    /// I am alive.
    Ping = 11,
    /// Names of the children, and Stat.
    GetChildren2 = 12,
    /// Only within a multi: has it this version?
    Check = 13,
    /// Changes, all or none.
    Multi = 14,
    /// Create; path and Stat come back.
    Create2 = 15,
    /// Change the ensemble.
    Reconfig = 16,
    /// Do I watch this?
    CheckWatches = 17,
    /// Stop watching.
    RemoveWatches = 18,
    /// Create a container; path and Stat come back.
    CreateContainer = 19,
    /// Not a client's: the leader deletes an empty container. ZooKeeper takes it from clients and checks no
    /// right; we refuse it.
    DeleteContainer = 20,
    /// Create a node that ends unless modified; path and Stat come back.
    CreateTtl = 21,
    /// Reads, each answered by itself.
    MultiRead = 22,
    /// Here are my credentials.
    Auth = 100,
    /// Watch again what was watched before the reconnect.
    SetWatches = 101,
    /// A token of a SASL exchange.
    Sasl = 102,
    /// The session's own ephemerals.
    GetEphemerals = 103,
    /// How many nodes below?
    GetAllChildrenNumber = 104,
    /// As setWatches, with the persistent ones.
    SetWatches2 = 105,
    /// Watch persistently.
    AddWatch = 106,
    /// Whom do you take me for?
    WhoAmI = 107,
    /// Not on the wire: what a ConnectRequest becomes in the log.
    CreateSession = -10,
    /// Good bye.
    CloseSession = -11,
}

impl Opcode {
    /// As the wire has it.
    pub const fn wire(self) -> i32 {
        self as i32
    }
}
