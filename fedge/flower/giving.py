"""What a worker is told when it is given clients to run."""

from fedge.flower.client_states import ClientStates
from fedge.flower.codec import Blobs, encode_content
from fedge.flower.frames import Memory, pack_frame
from fedge.flower.job import Job
from fedge.flower.link import Link
from fedge.stopwatch import current_watch


def give_chunk(job: Job, link: Link, states: ClientStates, downlink: Memory) -> None:
    """Add a chunk of clients to what will be sent to a worker, if any are left.

    Args:
        job: whose clients.
        link: to the worker.
        states: what clients kept; those that move to this worker go with them.
        downlink: memory that all workers read.
    """
    numbers = job.schedule.take(link.number)
    if not numbers:
        return
    first = b"" if link.knows_job else _introduction(job, link, downlink)
    blobs, items, clients = Blobs(), [], {}
    for number in numbers:
        metadata = job.messages[number].metadata
        clients[number] = node = metadata.dst_node_id
        kept = states.to_move(node, link.number)
        state = None if kept is None else encode_content(kept, blobs)
        which = (job.content_of[number], job.kind_of[number])
        what = (node, metadata.message_id, metadata.created_at, state)
        items.append((number, *which, *what))
    forget = states.take_forgotten(link.number)
    structure = ["run", link.begin_chunk(clients), items, forget]
    link.add_frame(first + pack_frame(structure, blobs.items, downlink))


def _introduction(job: Job, link: Link, downlink: Memory) -> bytes:
    """Return what a worker must be told before its first chunk of a job."""
    link.knows_job = True
    is_watched = current_watch() is not None
    if link.is_profiled == is_watched:
        return job.frame
    link.is_profiled = is_watched
    return pack_frame(["profile", link.is_profiled], [], downlink) + job.frame
