//! CSV as listening files and the catalogue have it: records as bytes, of any width, without a byte-order mark.

use std::io::Cursor;

use csv_async::{AsyncReader, AsyncReaderBuilder};
use tokio::io::{AsyncRead, AsyncReadExt, Chain};

/// Buffer of the reader: with a large one and a reused record it is as fast as it gets.
pub const BUFFER_BYTES: usize = 1 << 20;

/// What some programs put before UTF-8.
pub const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// A body of which the first bytes were looked at.
pub type Peeked<R> = Chain<Cursor<Vec<u8>>, R>;

/// Makes records of a body.
pub type Reader<R> = AsyncReader<Chain<&'static [u8], R>>;

/// Reads the first `count` bytes, fewer at the end of the body; gives them, and the body as it was.
pub async fn peek<R: AsyncRead + Unpin>(mut body: R, count: usize) -> std::io::Result<(Vec<u8>, Peeked<R>)> {
    let mut head = Vec::with_capacity(count);
    (&mut body).take(count as u64).read_to_end(&mut head).await?;
    Ok((head.clone(), Cursor::new(head).chain(body)))
}

/// Starts reading a file. A byte-order mark is passed over here, since before a quote it would hide the quote from the parser.
pub async fn reader<R: AsyncRead + Unpin + Send>(body: R) -> std::io::Result<Reader<Peeked<R>>> {
    let (head, mut body) = peek(body, BYTE_ORDER_MARK.len()).await?;
    if head == BYTE_ORDER_MARK {
        body.get_mut().0.set_position(BYTE_ORDER_MARK.len() as u64);
    }
    Ok(reader_amid(body))
}

/// Starts reading at a record amid a file. The reader sees a line feed before it, which is no record and counts as a line:
/// of what it believes to be the beginning of a file it would take away what looks like a byte-order mark.
pub fn reader_amid<R: AsyncRead + Unpin + Send>(body: R) -> Reader<R> {
    let mut builder = AsyncReaderBuilder::new();
    let builder = builder.has_headers(false).flexible(true).buffer_capacity(BUFFER_BYTES);
    builder.create_reader((&b"\n"[..]).chain(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_byte_order_mark_hides_nothing() {
        for (text, first) in [
            ("\u{feff}\"a\",b\n", "a"),
            ("\"a\",b\n", "a"),
            ("\u{feff}a\n", "a"),
            ("ab", "ab"),
            ("\u{feff}", ""),
            ("\u{feff}\u{feff}a", "\u{feff}a"),
        ] {
            let mut record = csv_async::ByteRecord::new();
            reader(text.as_bytes()).await.unwrap().read_byte_record(&mut record).await.unwrap();
            assert_eq!(record.get(0).unwrap_or_default(), first.as_bytes(), "{text:?}");
        }
    }
}
