//! The network between a client and the server: two pipes that deliver in order, in pieces, late.

/// One direction of a connection.
#[derive(Default)]
pub(super) struct Pipe {
    /// On its way.
    flying: Vec<u8>,
    /// With the receiver, who has not read it.
    arrived: Vec<u8>,
    /// The sender will send nothing more.
    ended: bool,
    /// A delivery is on the queue.
    pub(super) scheduled: bool,
}

impl Pipe {
    /// Send.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.flying.extend_from_slice(bytes);
    }

    /// Send nothing more.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    /// Is anything on its way?
    pub(super) fn is_flying(&self) -> bool {
        !self.flying.is_empty()
    }

    /// What is on its way is lost.
    pub(super) fn lose(&mut self) {
        self.flying.clear();
    }

    /// How much is on its way.
    pub(super) fn flying(&self) -> usize {
        self.flying.len()
    }

    /// Sent and not read.
    pub(super) fn unread(&self) -> usize {
        self.flying.len() + self.arrived.len()
    }

    /// So many bytes arrive.
    pub(super) fn arrive(&mut self, bytes: usize) {
        self.arrived.extend(self.flying.drain(..bytes));
    }

    /// Read what arrived.
    pub(super) fn read(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.arrived)
    }

    /// Has anything arrived that is not read?
    pub(super) fn has_arrived(&self) -> bool {
        !self.arrived.is_empty()
    }

    /// Is everything read, and nothing more to come?
    pub(super) fn is_over(&self) -> bool {
        self.ended && self.flying.is_empty() && self.arrived.is_empty()
    }
}

/// A connection's network.
#[derive(Default)]
pub(super) struct Wire {
    /// Whose.
    pub(super) client: usize,
    /// To which host.
    pub(super) host: usize,
    /// The client is gone without a word: what is sent to it is lost.
    pub(super) client_gone: bool,
    /// The server closed it, or died.
    pub(super) server_gone: bool,
    /// What the client sends.
    pub(super) to_server: Pipe,
    /// What the server sends.
    pub(super) to_client: Pipe,
}
