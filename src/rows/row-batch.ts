/** Rows as analyses read them: in row order, a batch at a time, and with what their form does not know left out. */

/** Ids one after the other, `[rows, L, K]`. Only signed ids can be negative: there is no id in that place. */
export type RowIds = Uint8Array | Uint16Array | Int32Array;

/** What all rows of a source have in common. */
export type RowsShape = Readonly<{
  /** The model's layer numbers in the order of the row; `null`: the form does not name them. */
  layers: readonly number[] | null;
  numLayers: number;
  topK: number;
  /** Experts of a layer; `null`: the form does not say. */
  numExperts: number | null;
}>;

/** Rows that follow one another. Valid until the next batch is asked for. */
export type RowBatch = Readonly<{
  ids: RowIds;
  numRows: number;
  /** Whether the first row begins another request, or another part of a file, than the row before. */
  startsRequest: boolean;
  /** Whether a forward pass ends behind the last row. Always false where passes are unknown. */
  endsStep: boolean;
  /** Router weights beside the ids; absent where the form has none. */
  weights?: Float64Array;
  /** Where an entry of `ids` stands in its file, for messages. */
  placeOf: (entry: number) => string;
}>;

/** What a form says beside the ids. What it does not say is unknown, and never guessed. */
export type RowsKnowledge = Readonly<{ requests: boolean; promptLengths: boolean; steps: boolean; tokens: boolean }>;

/** Rows of one or more files of the same shape. */
export type RowSource = Readonly<{
  /** For headlines: the form's name. */
  form: string;
  shape: RowsShape;
  knows: RowsKnowledge;
  batches: () => AsyncIterable<RowBatch>;
}>;
