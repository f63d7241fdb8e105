const MB=38;
const sz=+process.argv[2]; const n=Math.floor(MB*1e6/sz);
const src=new Uint8Array(sz).fill(1);
for(let r=0;r<7;r++){let arr=[];const a=performance.now();
 for(let i=0;i<n;i++){const x=new Uint8Array(sz);x.set(src);arr.push(x)}
 const b=performance.now()-a; arr=null; 
 await new Promise(r=>setTimeout(r,30));
 if(globalThis.gc) gc(); await new Promise(r=>setTimeout(r,100));
 console.log(sz,'round',r,b.toFixed(1),'ms', (process.memoryUsage().rss/1e6).toFixed(0),'MB rss', (process.memoryUsage().arrayBuffers/1e6).toFixed(0));}
