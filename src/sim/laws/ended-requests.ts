/** Ended requests of a long run, until no step in flight runs them: nothing more is asked of them then. */

import type { Flight } from '../flight.ts';
import type { TrackedRequest } from './tracked-request.ts';

export class EndedRequests {
  #requests: TrackedRequest[] = [];

  add(request: TrackedRequest): void {
    this.#requests.push(request);
  }

  /** `flights`: the steps under way. */
  forget(flights: readonly Flight[]): void {
    if (this.#requests.length === 0) return;
    this.#requests = this.#requests.filter((request) => {
      const isInFlight = flights.some(({ entries }) => entries.some((entry) => entry.request === request));
      if (!isInFlight) request.forget();
      return isInFlight;
    });
  }
}
