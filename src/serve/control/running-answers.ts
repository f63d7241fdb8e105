/** The generations that are being served, whether they run in the engine or wait for it. */

/** One of them, by the name that its client knows. */
type RunningAnswer = Readonly<{ id: string; abort: () => void }>;

export class RunningAnswers {
  readonly #answers = new Set<RunningAnswer>();

  /** Returns what takes it out again. */
  add(answer: RunningAnswer): () => void {
    this.#answers.add(answer);
    return () => this.#answers.delete(answer);
  }

  get size(): number {
    return this.#answers.size;
  }

  /** Ends all whose name fits, with the tokens and rows they have. Returns how many. */
  abort(fits: (id: string) => boolean): number {
    const chosen = [...this.#answers].filter(({ id }) => fits(id));
    for (const answer of chosen) answer.abort();
    return chosen.length;
  }
}
