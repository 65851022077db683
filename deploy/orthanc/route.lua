-- Orthanc sends each CT series to the node when nothing of it has come for StableAge seconds.
--
-- "pancreas" is the node's entry in DicomModalities. SEG and SR, which the node sends back, are no CT, so nothing goes round
-- in circles. A series of which more comes later is stable, and sent, again: the node keeps one copy of each instance.

local NODE = 'pancreas'

function OnStableSeries(seriesId, tags, metadata)
   if tags['Modality'] ~= 'CT' then
      return
   end
   -- A job: Orthanc goes on receiving meanwhile, and shows it under /jobs.
   local request = { Resources = { seriesId }, Synchronous = false }
   RestApiPost('/modalities/' .. NODE .. '/store', DumpJson(request, true))
   print('series ' .. seriesId .. ' is on its way to ' .. NODE)
end

-- A node that was away misses what became stable meanwhile: the log says so. It looks for that itself, by a rule of [[pull]];
-- or send the job again: POST /jobs/ID/resubmit.
function OnJobFailure(jobId)
   PrintRecursive('job ' .. jobId .. ' failed: see /jobs/' .. jobId)
end
