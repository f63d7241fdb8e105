/** The servers of one role: which are up, and which is next in turn. */

import { HttpError } from '../http-error.ts';
import type { BackendRole } from './backend.ts';
import { Backend } from './backend.ts';

export class BackendPool {
  readonly role: BackendRole;
  readonly backends: readonly Backend[];
  readonly #stop = new AbortController();
  #next = 0;
  #timer: NodeJS.Timeout | null = null;

  constructor(role: BackendRole, urls: readonly string[]) {
    this.role = role;
    this.backends = urls.map((url) => new Backend(role, url));
  }

  /** Looks at every server once, then every `healthMs`. */
  async watch(healthMs: number): Promise<void> {
    await Promise.all(this.backends.map((backend) => backend.check(this.#stop.signal)));
    if (this.#stop.signal.aborted) return;
    this.#timer = setTimeout(() => void this.watch(healthMs), healthMs);
  }

  get hasUp(): boolean {
    return this.backends.some((backend) => backend.isUp);
  }

  /** Throws NO_BACKEND. */
  requireUp(): void {
    if (this.hasUp) return;
    throw HttpError.of('NO_BACKEND', null, this.role, this.backends.map(({ url }) => url).join(', '));
  }

  /**
   * Returns the servers that are up, round robin: the first is next in turn, the others are to be tried if it fails.
   * Throws NO_BACKEND.
   */
  inTurn(): readonly Backend[] {
    this.requireUp();
    const { length } = this.backends;
    const turn = this.#next++ % length;
    const inOrder = this.backends.map((_, i) => this.backends[(turn + i) % length]!);
    return inOrder.filter((backend) => backend.isUp);
  }

  close(): void {
    this.#stop.abort();
    if (this.#timer !== null) clearTimeout(this.#timer);
    for (const backend of this.backends) backend.close();
  }
}
