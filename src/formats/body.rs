//! Body: the text of a file, decompressed and bounded. Covered by the tests of `csv::blocks` and by `tests/hostile`.

use std::io::Cursor;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use async_compression::tokio::bufread::{GzipDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use tokio::io::{AsyncRead, AsyncReadExt, BufReader, ReadBuf};

use crate::aws::error::AwsError;
use crate::formats::{BadFile, Compression, FileError};

/// Size of a block's text: large enough that handing it to another thread costs nothing, small enough for a core's
/// cache.
pub const BLOCK_BYTES: usize = 256 << 10;
/// Byte-order mark that some programs put before UTF-8.
pub const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
/// Longest record, in bytes without its final line end.
pub const MAX_RECORD_BYTES: usize = 2 << 20;

/// The first two bytes of a gzip stream: <https://www.rfc-editor.org/rfc/rfc1952#section-2.3.1>.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// The first four bytes of a zstd frame: <https://www.rfc-editor.org/rfc/rfc8878#section-3.1.1>.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Bytes that a decompressor takes at a time.
const COMPRESSED_BYTES: usize = 64 << 10;
/// Greatest window of a zstd frame, as a power of two: the 8 MiB that every decoder should have
/// (<https://www.rfc-editor.org/rfc/rfc8878#section-3.1.1.1.2>), and what all levels but `--ultra` need.
const MAX_ZSTD_WINDOW_LOG: u32 = 23;

impl Compression {
    /// Returns the compression of a stream that begins with these bytes.
    pub(super) fn of(head: &[u8]) -> Option<Self> {
        // A zstd frame that decoders skip: <https://www.rfc-editor.org/rfc/rfc8878#section-3.1.2>.
        let is_skippable = matches!(head, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]);
        match head {
            _ if head.starts_with(&GZIP_MAGIC) => Some(Compression::Gzip),
            _ if head.starts_with(&ZSTD_MAGIC) || is_skippable => Some(Compression::Zstd),
            _ => None,
        }
    }
}

/// The text of a file: decompressed and bounded.
pub(crate) struct Body<'a> {
    inner: Pin<Box<dyn AsyncRead + Send + 'a>>,
    compression: Option<Compression>,
    delivered: u64,
    limit_bytes: u64,
}

impl<'a> Body<'a> {
    /// Recognizes gzip and zstd by the first bytes, whatever the file's name. `limit_bytes` bounds the decompressed
    /// text.
    pub(crate) async fn open(
        mut file: impl AsyncRead + Send + Unpin + 'a,
        limit_bytes: u64,
    ) -> Result<Self, FileError> {
        let mut head = Vec::with_capacity(ZSTD_MAGIC.len());
        (&mut file).take(ZSTD_MAGIC.len() as u64).read_to_end(&mut head).await?;
        if head.is_empty() {
            return Err(BadFile::Empty.into());
        }
        let compression = Compression::of(&head);
        let file = Cursor::new(head).chain(file);
        let inner: Pin<Box<dyn AsyncRead + Send + 'a>> = match compression {
            None => Box::pin(file),
            Some(Compression::Gzip) => {
                let mut decoder = GzipDecoder::new(BufReader::with_capacity(COMPRESSED_BYTES, file));
                decoder.multiple_members(true);
                Box::pin(decoder)
            }
            Some(Compression::Zstd) => {
                let window = [DParameter::window_log_max(MAX_ZSTD_WINDOW_LOG)];
                let file = BufReader::with_capacity(COMPRESSED_BYTES, file);
                let mut decoder = ZstdDecoder::with_params(file, &window);
                decoder.multiple_members(true);
                Box::pin(decoder)
            }
        };
        Ok(Body { inner, compression, delivered: 0, limit_bytes })
    }

    /// The compression that was recognized.
    pub(crate) fn compression(&self) -> Option<Compression> {
        self.compression
    }

    /// Reads until there are `wanted` bytes. Returns true if the text has ended.
    pub(crate) async fn fill(&mut self, text: &mut Vec<u8>, wanted: usize) -> Result<bool, FileError> {
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
        let read = ready!(self.inner.as_mut().poll_read(context, buffer));
        self.delivered += (buffer.filled().len() - before) as u64;
        if self.delivered > self.limit_bytes {
            let bad = BadFile::TooLarge { limit_bytes: self.limit_bytes };
            return Poll::Ready(Err(std::io::Error::other(bad)));
        }
        Poll::Ready(read.map_err(|error| match self.compression {
            Some(compression) => damage(compression, error),
            None => error,
        }))
    }
}

/// Returns the error of a decompressor as that of the file. Errors of the bucket pass through it unchanged.
fn damage(compression: Compression, error: std::io::Error) -> std::io::Error {
    if error.get_ref().is_some_and(|inner| inner.is::<AwsError>()) {
        return error;
    }
    std::io::Error::other(match error.kind() {
        std::io::ErrorKind::UnexpectedEof => BadFile::CutOff(compression),
        _ => BadFile::Damaged { compression, problem: error.to_string() },
    })
}

/// Returns the kind of a file that begins with these bytes, or `None` if they may be text.
pub(crate) fn binary_kind(head: &[u8]) -> Option<&'static str> {
    known_binary_kind(head).or_else(|| std::str::from_utf8(head).is_err().then_some("binary"))
}

/// Fails if the beginning of a text shows that it is none. Only some of its fields need to be UTF-8.
pub(crate) fn refuse_binary(text: &[u8], expected: &'static str) -> Result<(), BadFile> {
    const LOOK_BYTES: usize = 256;
    match known_binary_kind(&text[..text.len().min(LOOK_BYTES)]) {
        Some(kind) => Err(BadFile::Binary { expected, kind }),
        None => Ok(()),
    }
}

fn known_binary_kind(head: &[u8]) -> Option<&'static str> {
    const UTF_16: &str = "binary (text in UTF-16; write it in UTF-8)";
    // First bytes of formats that are mistaken for text.
    const KINDS: [(&[u8], &str); 9] = [
        (b"\xFF\xFE", UTF_16),
        (b"\xFE\xFF", UTF_16),
        (&GZIP_MAGIC, "binary (gzip within another compression; compress it once)"),
        (&ZSTD_MAGIC, "binary (zstd within another compression; compress it once)"),
        (b"BZh", "binary (compressed with bzip2; use gzip or zstd)"),
        (b"PK\x03\x04", "binary (a ZIP archive or a spreadsheet)"),
        (b"PAR1", "binary (Parquet)"),
        (b"Obj\x01", "binary (Avro)"),
        (b"ORC", "binary (ORC)"),
    ];
    let known = KINDS.iter().find(|(magic, _)| head.starts_with(magic)).map(|&(_, kind)| kind);
    // Without a byte-order mark, ASCII in UTF-16 has a zero in every other byte.
    let is_wide = head.len() > 3 && head.chunks_exact(2).take(8).all(|pair| (pair[0] == 0) != (pair[1] == 0));
    known.or(is_wide.then_some(UTF_16)).or_else(|| head.contains(&0).then_some("binary"))
}
