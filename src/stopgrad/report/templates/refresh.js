// During a run its page is reloaded now and then; one that has not been written for long says so.
(() => {
  const note = document.getElementById("freshness");
  const minutes = (Date.now() / 1000 - Number(note.dataset.written)) / 60;
  if (minutes > 15) note.textContent += ` Nothing new for ${Math.round(minutes)} minutes: the run may have stopped.`;
  setTimeout(() => location.reload(), Number(note.dataset.refresh) * 1000);
})();
