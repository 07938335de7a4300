//! The text of a file, of which a window is in memory.

use tokio::io::AsyncRead;

use crate::formats::{BLOCK_BYTES, BYTE_ORDER_MARK, Body, FileError, MAX_RECORD_BYTES};

/// Bytes that are looked at ahead: a record that is just too long.
const WINDOW_BYTES: usize = MAX_RECORD_BYTES + 1;

/// The text of a file.
pub(super) struct Text {
    body: Body<'static>,
    text: Vec<u8>,
    at: usize,
    has_ended: bool,
}

impl Text {
    /// Opens a file and passes over its byte-order mark.
    pub(super) async fn open(
        body: impl AsyncRead + Send + Unpin + 'static,
        limit_bytes: u64,
    ) -> Result<Self, FileError> {
        let body = Body::open(body, limit_bytes).await?;
        let mut text = Text { body, text: Vec::new(), at: 0, has_ended: false };
        text.see(BYTE_ORDER_MARK.len()).await?;
        if text.text.starts_with(BYTE_ORDER_MARK) {
            text.at = BYTE_ORDER_MARK.len();
        }
        Ok(text)
    }

    /// Sees to it that so many bytes are there, if the file has them.
    async fn see(&mut self, bytes: usize) -> Result<(), FileError> {
        if self.text.len() - self.at < bytes && !self.has_ended {
            self.text.drain(..self.at);
            self.at = 0;
            self.has_ended = self.body.fill(&mut self.text, bytes + BLOCK_BYTES).await?;
        }
        Ok(())
    }

    /// Returns what follows: enough for the longest record and one byte more, or all.
    pub(super) async fn window(&mut self) -> Result<&[u8], FileError> {
        self.see(WINDOW_BYTES).await?;
        let rest = &self.text[self.at..];
        Ok(&rest[..rest.len().min(WINDOW_BYTES)])
    }

    /// Returns the next byte without consuming it.
    pub(super) async fn peek(&mut self) -> Result<Option<u8>, FileError> {
        if self.at == self.text.len() {
            self.see(1).await?;
        }
        Ok(self.text.get(self.at).copied())
    }

    /// Returns so many bytes, which are there.
    pub(super) fn next_bytes(&self, length: usize) -> &[u8] {
        &self.text[self.at..self.at + length]
    }

    /// Consumes bytes, which are there.
    pub(super) fn pass(&mut self, bytes: usize) {
        self.at += bytes;
    }
}
