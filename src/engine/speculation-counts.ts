/**
 * Counts verified and accepted drafts since the start. As in vLLM a draft is all that one request has in one step: up
 * to `numSpeculativeTokens` tokens.
 */
export class SpeculationCounts {
  numDrafts = 0;
  numDraftTokens = 0;
  numAcceptedTokens = 0;

  /** Counts a draft of `numTokens` tokens, of which the first `numAccepted` were right. */
  add(numTokens: number, numAccepted: number): void {
    if (numTokens === 0) return;
    this.numDrafts += 1;
    this.numDraftTokens += numTokens;
    this.numAcceptedTokens += numAccepted;
  }
}
