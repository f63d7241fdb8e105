/** Looks for a frontend and joins it: the handshake over a ZeroMQ socket, with its time limit. */

import type { Dealer } from 'zeromq';
import { RoutedExpertsError } from '../../contract/errors.ts';
import { dealer, FrontendSockets, type SocketEvents } from './frontend-sockets.ts';
import { Handshake, type EngineFacts, type FrontendAddresses } from './handshake.ts';
import { SendQueue } from './send-queue.ts';

export type AttachOptions = Readonly<{
  /** Of the frontend: `tcp://host:port`. */
  address: string;
  engine: EngineFacts;
  parallelConfigHash: string | null;
  /** How long a frontend may take to appear and to answer; `null`: for ever. */
  timeoutMs: number | null;
  goneAfterMs: number;
}>;

/** Returns what hears the frontend, which has so many API servers; `sockets` can be used from then on. */
export type OnJoin = (addresses: FrontendAddresses, sockets: () => FrontendSockets) => SocketEvents;

/** A peer that ends so many connections before they are ZeroMQ's is no frontend. */
const MOST_REJECTIONS = 3;

/**
 * Resolves when the frontend has the engine. Rejects with NO_FRONTEND, BAD_FRONTEND, or the reason of `signal`; nothing
 * is left open then.
 */
export async function attach(options: AttachOptions, onJoin: OnJoin, signal: AbortSignal): Promise<FrontendSockets> {
  const { address, timeoutMs } = options;
  const { promise: tooLate, reject } = Promise.withResolvers<never>();
  // It may reject while nothing waits for it.
  tooLate.catch(() => {});
  const giveUp = (ms: number): void => reject(noFrontend(address, `none answered within ${ms / 1e3} s`));
  const timer = timeoutMs === null ? undefined : setTimeout(giveUp, timeoutMs, timeoutMs);
  const onAbort = (): void => reject(signal.reason as Error);
  signal.addEventListener('abort', onAbort);
  try {
    signal.throwIfAborted();
    for (let numRejections = 0; numRejections < MOST_REJECTIONS;) {
      const attempt = new Attempt(options, onJoin);
      const outcome = await attempt.outcome(tooLate);
      if (outcome instanceof FrontendSockets) return outcome;
      numRejections = outcome === 'rejected' ? numRejections + 1 : 0;
    }
    throw noFrontend(address, 'what listens there ends the connection, and is no frontend of vLLM’s');
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', onAbort);
  }
}

type Outcome = FrontendSockets | 'lost' | 'rejected';

/** One connection. A frontend that goes away before it has the engine may come back: it then wants a new HELLO. */
class Attempt {
  readonly #socket: Dealer;
  readonly #outgoing: SendQueue;
  readonly #settled: PromiseWithResolvers<Outcome> = Promise.withResolvers<Outcome>();
  #sockets: FrontendSockets | null = null;

  constructor({ address, engine, parallelConfigHash, goneAfterMs }: AttachOptions, onJoin: OnJoin) {
    const identity = Buffer.alloc(2);
    identity.writeUInt16LE(engine.engineIndex);
    this.#socket = dealer(identity, {});
    this.#outgoing = new SendQueue(this.#socket);
    const handshake: Handshake = new Handshake(
      { address, engine, parallelConfigHash },
      {
        say: (frame) => this.#outgoing.push([frame]),
        join: (addresses, readyResponse) => {
          const events = onJoin(addresses, () => this.#sockets!);
          const onCoordinator = (frames: Uint8Array[]): void => {
            if (!handshake.onCoordinator(frames)) events.onCoordinator(frames);
          };
          const options = { identity, readyResponse, goneAfterMs };
          this.#sockets = new FrontendSockets(addresses, options, { ...events, onCoordinator });
        },
        joined: () => this.#settled.resolve(this.#sockets!),
        fail: (error) => this.#settled.reject(error),
      },
    );
    let isPeer = false;
    this.#socket.events.on('handshake', () => (isPeer = true));
    this.#socket.events.on('disconnect', () => this.#settled.resolve(isPeer ? 'lost' : 'rejected'));
    this.#socket.connect(address);
    handshake.begin();
    void this.#receive(handshake);
  }

  /** Rejects with what the handshake fails with, or `tooLate` does. */
  async outcome(tooLate: Promise<never>): Promise<Outcome> {
    let outcome: Outcome = 'lost';
    try {
      outcome = await Promise.race([this.#settled.promise, tooLate]);
      return outcome;
    } finally {
      if (outcome === this.#sockets) this.#sockets.keepUntilLost(this.#socket);
      else {
        await this.#sockets?.close({ isGone: true });
        this.#socket.close();
      }
    }
  }

  /** Ends when the socket is closed. */
  async #receive(handshake: Handshake): Promise<void> {
    for await (const frames of this.#socket) handshake.onFrame(frames.at(-1)!);
  }
}

function noFrontend(address: string, problem: string): RoutedExpertsError {
  return RoutedExpertsError.of('NO_FRONTEND', address, problem);
}
