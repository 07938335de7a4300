//! Body: the text of a file, decompressed and bounded. Covered by the tests of `blocks` and by `tests/hostile`.

use std::io::Cursor;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_compression::tokio::bufread::GzipDecoder;
use tokio::io::{AsyncRead, AsyncReadExt, BufReader, ReadBuf};

use crate::formats::csv::{CsvError, NotCsv};

/// The first two bytes of a gzip stream: <https://www.rfc-editor.org/rfc/rfc1952#section-2.3.1>.
pub(super) const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// Bytes that the decompressor takes at a time.
const GZIP_BUFFER_BYTES: usize = 64 << 10;

/// The text of a file: decompressed and bounded.
pub(crate) struct Body<'a> {
    inner: Pin<Box<dyn AsyncRead + Send + 'a>>,
    delivered: u64,
    limit_bytes: u64,
}

impl<'a> Body<'a> {
    /// Recognizes gzip by the first bytes. `limit_bytes` bounds the decompressed text.
    pub(crate) async fn open(mut file: impl AsyncRead + Send + Unpin + 'a, limit_bytes: u64) -> Result<Self, CsvError> {
        let mut magic = Vec::with_capacity(GZIP_MAGIC.len());
        (&mut file).take(GZIP_MAGIC.len() as u64).read_to_end(&mut magic).await?;
        if magic.is_empty() {
            return Err(NotCsv::Empty.into());
        }
        let is_gzip = magic == GZIP_MAGIC;
        let file = Cursor::new(magic).chain(file);
        let inner: Pin<Box<dyn AsyncRead + Send + 'a>> = if is_gzip {
            let mut decoder = GzipDecoder::new(BufReader::with_capacity(GZIP_BUFFER_BYTES, file));
            decoder.multiple_members(true);
            Box::pin(decoder)
        } else {
            Box::pin(file)
        };
        Ok(Body { inner, delivered: 0, limit_bytes })
    }

    /// Reads until there are `wanted` bytes. Returns true if the text has ended.
    pub(crate) async fn fill(&mut self, text: &mut Vec<u8>, wanted: usize) -> Result<bool, CsvError> {
        while text.len() < wanted {
            text.reserve(wanted - text.len());
            if self.read_buf(text).await? == 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl AsyncRead for Body<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let ready = self.inner.as_mut().poll_read(context, buffer);
        self.delivered += (buffer.filled().len() - before) as u64;
        if self.delivered > self.limit_bytes {
            let bad = NotCsv::TooLarge { limit_bytes: self.limit_bytes };
            return Poll::Ready(Err(std::io::Error::other(bad)));
        }
        ready
    }
}
