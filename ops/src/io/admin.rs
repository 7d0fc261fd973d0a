//! The administration socket, from the asking end.

use crate::cli::Exit;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use warren_server::admin::{self, Request, Response, Status};

/// A hand-over takes an election at most.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// An answer at most, bytes: a status of all the servers that an ensemble can have is far below.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// Nobody answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("you may not open {}: ask as root, or as the user that the server runs as", path.display())]
    Denied { path: PathBuf },
    #[error("no server answers at {}: {source}; is it running, and is this its data folder (--data-dir)?", path.display())]
    Connect { path: PathBuf, source: io::Error },
    #[error("the server at {} did not answer: {source}", path.display())]
    Talk { path: PathBuf, source: io::Error },
    #[error("the server at {} gave an answer that this version does not know: {source}", path.display())]
    Answer { path: PathBuf, source: serde_json::Error },
}

/// Ask, and wait for the answer.
pub(super) fn ask(socket: &Path, request: &Request) -> Result<Response, AskError> {
    let path = || socket.to_path_buf();
    let stream = UnixStream::connect(socket).map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => AskError::Denied { path: path() },
        _ => AskError::Connect { path: path(), source },
    })?;
    let line = talk(&stream, request).map_err(|source| AskError::Talk { path: path(), source })?;
    serde_json::from_str(&line).map_err(|source| AskError::Answer { path: path(), source })
}

/// Ask how the server is; what to say where it does not tell, and how to end.
pub(super) fn status(socket: &Path) -> Result<Box<Status>, (String, Exit)> {
    match ask(socket, &Request::Status) {
        Ok(Response::Status(status)) => Ok(status),
        Ok(Response::Refused(why)) => Err((format!("refused: {why}"), Exit::Degraded)),
        Ok(_) => Err(("the server is of another version, and answers otherwise".to_owned(), Exit::Degraded)),
        Err(e) => Err((e.to_string(), Exit::Unreachable)),
    }
}

/// A checkpoint comes before a backup, and the server waits for it that long at most.
const STREAM_BEGINS_WITHIN: Duration = Duration::from_secs(150);
/// A server that sends nothing for so long is stuck.
const STREAM_SILENCE_MAX: Duration = Duration::from_secs(60);
/// What is read ahead of a stream, bytes.
const STREAM_BUFFER_BYTES: usize = 1 << 20;

/// Ask for what is answered by a line and a stream behind it.
pub(super) fn stream(
    socket: &Path,
    request: &Request,
) -> Result<(Response, BufReader<UnixStream>), AskError> {
    let path = || socket.to_path_buf();
    let stream = UnixStream::connect(socket).map_err(|source| AskError::Connect { path: path(), source })?;
    let begin = || -> io::Result<(String, BufReader<UnixStream>)> {
        stream.set_read_timeout(Some(STREAM_BEGINS_WITHIN))?;
        stream.set_write_timeout(Some(ANSWER_WITHIN))?;
        (&stream).write_all(admin::line(request).as_bytes())?;
        let mut input = BufReader::with_capacity(STREAM_BUFFER_BYTES, stream.try_clone()?);
        let mut line = String::new();
        (&mut input).take(ANSWER_BYTES_MAX).read_line(&mut line)?;
        stream.set_read_timeout(Some(STREAM_SILENCE_MAX))?;
        if line.ends_with('\n') { Ok((line, input)) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    };
    let (line, input) = begin().map_err(|source| AskError::Talk { path: path(), source })?;
    let response = serde_json::from_str(&line).map_err(|source| AskError::Answer { path: path(), source })?;
    Ok((response, input))
}

/// Tell more on the connection of a stream that was read to its end, and wait for the answer.
pub(super) fn tell(stream: &mut BufReader<UnixStream>, request: &Request) -> io::Result<Response> {
    stream.get_ref().set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.get_ref().write_all(admin::line(request).as_bytes())?;
    let mut line = String::new();
    stream.take(ANSWER_BYTES_MAX).read_line(&mut line)?;
    match line.is_empty() {
        true => Err(io::ErrorKind::UnexpectedEof.into()),
        false => Ok(serde_json::from_str(&line)?),
    }
}

fn talk(mut stream: &UnixStream, request: &Request) -> io::Result<String> {
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
    stream.write_all(admin::line(request).as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream.take(ANSWER_BYTES_MAX)).read_line(&mut line)?;
    match line.ends_with('\n') {
        true => Ok(line),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
