/** What the caller knows of rows, where their form may not say it. What contradicts the form is an error. */
export type ReadRowsHints = Readonly<{
  rowShape?: Readonly<{ numLayers: number; topK: number }>;
  numExperts?: number;
  /** Parquet: the column that holds the rows. */
  column?: string;
}>;
